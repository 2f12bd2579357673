"""The defects of the systems that came before, each as a test that fails if this library ever has it too."""
