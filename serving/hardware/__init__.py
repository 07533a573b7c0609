"""What machine this is: `detect()` → Machine."""

from serving.hardware.detect import detect
from serving.hardware.machine import Cpu, Disk, Gpu, Host, Machine, Memory, MigSlice, NumaNode

__all__ = ["Cpu", "Disk", "Gpu", "Host", "Machine", "Memory", "MigSlice", "NumaNode", "detect"]
