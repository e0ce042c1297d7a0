"""Who takes part, in the order of the tables."""

from __future__ import annotations

from .base import Chooser, Contender
from .diffprivlib_select import DiffprivlibExponential, DiffprivlibFlip
from .mldp_text import MldpMultivariate, MldpTEM
from .opendp_max import OpenDPGumbel, OpenDPMax
from .privkt_mechanism import Mechanism
from .privkt_words import FixedTime, Listed, Nearest, Streaming, StreamingAVX2
from .pypantera_text import PypanteraSanText, PypanteraTEM
from .santext_table import SanTextTable
from .torch_gumbel import Gumbel, GumbelBfloat16
from .torch_softmax import Softmax

BASE = Softmax.name
CONTENDERS: dict[str, type[Contender]] = {
    contender.name: contender
    for contender in (
        Softmax,
        Gumbel,
        GumbelBfloat16,
        SanTextTable,
        MldpTEM,
        MldpMultivariate,
        PypanteraSanText,
        PypanteraTEM,
        OpenDPMax,
        OpenDPGumbel,
        DiffprivlibExponential,
        DiffprivlibFlip,
        Streaming,
        StreamingAVX2,
        Listed,
        FixedTime,
        Mechanism,
        Nearest,
    )
}

__all__ = ["BASE", "CONTENDERS", "Chooser", "Contender"]
