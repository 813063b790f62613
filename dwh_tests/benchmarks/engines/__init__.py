"""The contenders, one module for each engine; a module is imported in the process that measures it."""
