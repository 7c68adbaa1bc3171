"""Ground floor: files, processes and recordings of a machine. Standard library only."""
