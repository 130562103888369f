"""The flight recorder: what every ENI did lately, at a tenth of a second, kept and played back."""
