"""Models on the Hugging Face hub: pushed with their card, loaded by name, checked by their hashes."""
