"""eni53: who sends the packets that count against an ENI's 1024 a second."""

__version__ = "0.1.0"
