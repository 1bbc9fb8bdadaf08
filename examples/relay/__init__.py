"""The parts of the GitHub relay example."""
