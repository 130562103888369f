"""eni53 without BPF, inside a task: it counts the one ENI of the network namespace it is in."""
