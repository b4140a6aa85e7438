"""Operators for training on a CPU, compiled from cpu.c where they run."""
