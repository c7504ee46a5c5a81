"""The command line. Each command lives in a module of its own and imports what it needs when it runs."""
