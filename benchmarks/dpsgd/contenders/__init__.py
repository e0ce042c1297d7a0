"""Who takes part, in the order of the tables."""

from __future__ import annotations

from .base import Contender, Setting, adamw
from .fastdp import FastDP
from .opacus_ghost import OpacusGhost
from .opacus_hooks import OpacusHooks
from .opake_vmap import Opake
from .plain import Plain
from .private import Privkt, PrivktCheckpointed
from .same_head import SameHead

CONTENDERS: dict[str, type[Contender]] = {
    contender.name: contender
    for contender in (Plain, SameHead, OpacusHooks, OpacusGhost, FastDP, Opake, Privkt, PrivktCheckpointed)
}

__all__ = ["CONTENDERS", "Contender", "Setting", "adamw"]
