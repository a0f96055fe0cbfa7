"""What came of an input, as the fuzz targets tell it (test/fuzz/fuzz.h)."""


class Story:
    """Lines for the application, data sent, and control frames sent.

    A line may be a tuple: any of its texts is right.  Where an input ends
    within something that is wrong already, nobody says when that must be
    noticed: `maybe` is then another story that is right, too.
    """

    def __init__(self):
        self.app, self.data, self.control = [], [], []
        self.maybe = []

    def tell(self, channel, word, data=None):
        if data is not None:
            word += " " + bytes(data).hex()
        getattr(self, channel).append(word)

    def lines(self):
        out = []
        for channel in ("app", "data", "control"):
            for line in getattr(self, channel):
                texts = line if isinstance(line, tuple) else (line,)
                out.append(tuple(channel + " " + t for t in texts))
        return out

    def fits(self, told):
        """Is this, or another right story, what was told?"""
        mine = self.lines()
        if len(mine) == len(told) and all(
                t in texts for texts, t in zip(mine, told)):
            return True
        return any(other.fits(told) for other in self.maybe)
