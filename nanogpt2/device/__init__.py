"""What this machine is: its devices, precisions, memory, threads, graphs, compiler, processes."""
