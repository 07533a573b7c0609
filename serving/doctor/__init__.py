"""What is right and wrong with this host: facts are gathered, then judged by pure checks."""

from serving.doctor.checks import examine
from serving.doctor.facts import Facts
from serving.doctor.finding import Finding
from serving.doctor.gather import gather, read_models

__all__ = ["Facts", "Finding", "examine", "gather", "read_models"]
