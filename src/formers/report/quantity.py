"""Large numbers as people read them, and how large a number is in memory."""

NUMBER = 4  # bytes of a parameter or of a remembered value: fp32


def of_operations(count: float) -> str:
    """Three digits and a unit of a thousandfold, such as 256 M for 256,519,680; a dash for none."""
    for unit in ("", "k", "M", "G", "T"):
        if count < 999.5:
            return _three_digits(count, unit)
        count /= 1000
    return _three_digits(count, "P")


def of_bytes(count: float) -> str:
    """Three digits and a binary unit, such as 72.0 KiB; a dash for none."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 999.5:
            return _three_digits(count, unit)
        count /= 1024
    return _three_digits(count, "PiB")


def _three_digits(value: float, unit: str) -> str:
    if value == 0:
        return "-"
    digits = 0 if value >= 99.95 or (value == int(value) and unit in ("", "B")) else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}".rstrip()
