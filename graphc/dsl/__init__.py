"""What users write: tensors and their operators, declarations, layers, initialisers, optimizers."""
