"""privkt: knowledge transfer between large and small language models under differential privacy.

Importing this package loads neither torch nor any plugin; what needs them imports them when called.
"""

from importlib import metadata

try:
    __version__ = metadata.version("privkt")
except metadata.PackageNotFoundError:  # imported from its source folder; `privkt.kernels` says what to do
    __version__ = "0+source"
