"""The matrix: the same tests with every interpreter, library and database that the library says it runs on."""
