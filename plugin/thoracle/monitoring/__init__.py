"""Whether the gateway still sees what it saw when it was taken into service, in plain sentences."""
