"""One trainer for fine-tuning and for compressed layers. A run that is killed resumes to the same bits."""

__all__: list[str] = []
