"""The *See Also* graph of the installed scientific stack, as pairs and items."""
