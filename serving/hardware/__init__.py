"""What machine this is: `detect()` → Machine."""

from serving.hardware.detect import detect
from serving.hardware.machine import Cpu, Disk, Gpu, Machine, Memory

__all__ = ["Cpu", "Disk", "Gpu", "Machine", "Memory", "detect"]
