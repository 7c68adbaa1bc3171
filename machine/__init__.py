"""Ground floor: the one door to the machine. Standard library only."""
