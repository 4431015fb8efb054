"""An actor that holds letters. It cannot read them, so that its process imports nothing."""


class Mailbox:
    """Letters that the addressee has not fetched yet, in the order in which they came."""

    def __init__(self) -> None:
        self._letters: list[bytes] = []

    def put(self, letter: bytes) -> None:
        """Add a letter."""
        self._letters.append(letter)

    def take(self) -> list[bytes]:
        """Return the letters, and forget them."""
        letters, self._letters = self._letters, []
        return letters
