"""Reading pairs and items: one file a format, one form that rows take."""
