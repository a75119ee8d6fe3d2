"""Which addresses were met before, in a few megabytes however many there are."""

BITS = 2**25  # 4 MiB: of a million addresses, one in a thousand is taken for a known one


class Seen:
    """A Bloom filter: it forgets no address, and may take a new one for known; then the database decides.

    A set of a million addresses takes 110 MB, one of their hashes 65 MB; this stays as it is, and only asks
    more often.
    """

    def __init__(self) -> None:
        self._bits = bytearray(BITS // 8)

    def add(self, address: str) -> bool:
        """Note ``address``; returns whether it may have been there."""
        number = hash(address)
        first = self._mark(number % BITS)
        return self._mark((number >> 32) % BITS) and first

    def _mark(self, bit: int) -> bool:
        byte, mask = bit >> 3, 1 << (bit & 7)
        known = bool(self._bits[byte] & mask)
        self._bits[byte] |= mask
        return known
