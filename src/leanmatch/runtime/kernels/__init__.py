"""Which kernel runs each linear layer: what could, what each costs, and the ranges of its inputs."""
