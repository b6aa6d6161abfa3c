"""Format byte counts: memory in powers of two (GiB), files and downloads in powers of ten (GB)."""

MIB, GIB = 2**20, 2**30
BINARY = ((GIB, "GiB"), (MIB, "MiB"), (1024, "KiB"))
DECIMAL = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def binary(count: float) -> str:
    """Format bytes of memory in GiB, MiB, KiB or bytes, such as 515 GiB, 61.8 GiB, 8.34 GiB or 4 bytes."""
    unit, name = next((pair for pair in BINARY if count >= pair[0]), (1, "byte" if count == 1 else "bytes"))
    value = count / unit
    return f"{value:,.{0 if value >= 99.95 or unit == 1 else 1 if value >= 9.995 else 2}f} {name}"


def decimal(count: float) -> str:
    """Format a file size in GB, MB or kB."""
    unit, name = next((pair for pair in DECIMAL if count >= pair[0]), (1, "byte" if count == 1 else "bytes"))
    value = count / unit
    return f"{value:,{'.3g' if value < 999.5 else '.0f'}} {name}"
