"""Use-cases of operators, behind the same door as everybody's."""
