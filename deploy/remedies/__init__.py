"""Templates of `eni53 remedy`: a folder for each, `@{name}` where a node's value goes."""
