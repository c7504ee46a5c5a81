"""Words: how texts and tokenizers have them, and how training moved their importance."""
