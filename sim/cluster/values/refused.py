"""How a command ends that is not performed: with a result code."""

from geotrain.wire.codes import ResultCode


class Refused(Exception):
    """A command that ends with a result code other than OK."""

    def __init__(self, code: ResultCode) -> None:
        super().__init__(code.name)
        self.code = code
