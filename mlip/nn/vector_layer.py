"""One layer of scalars and vectors: attention over neighbours, which may be atoms or centres of fragments."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.core.numbers import is_whole
from mlip.nn.dense import Dense
from mlip.ops.segment import segment_sum


class Links(NamedTuple):
    """Who sends to whom.

    Attributes:
        senders, receivers: ``(links,)``; receivers ascending.
        directions: ``(links, 3)`` unit vectors, or shorter ones, from the receiver to the sender.
        envelope: ``(links, 1)``: one at distance zero, zero from the cutoff on.
    """

    senders: Tensor
    receivers: Tensor
    directions: Tensor
    envelope: Tensor


class Changes(NamedTuple):
    """What a layer adds.

    Attributes:
        scalars: ``(receivers, d)``.
        vectors: ``(receivers, 3, d)``; None where the layer gives none.
        links: ``(links, d)``; None where they do not change.
    """

    scalars: Tensor
    vectors: Tensor | None
    links: Tensor | None


class VectorLayer(nn.Module):
    """Attention with scalars x, vectors v and features f of the links (ViSNet and LSRM as SPHNet uses them).

        a_ij = SiLU( Σ_head q_i k_j dk_ij ) env(r_ij),          q, k, u = Linear(LayerNorm(x)), dk, du = SiLU(Linear(f))
        m_ij = u_j du_ij a_ij,  (s1, s2) = SiLU(Linear(m_ij)),  v_ij = (v_j s1 + r̂_ij s2) env(r_ij)
        Δx_i = <w1, w2> o2 + o3,  Δv_i = w3 o1 + Σ_j v_ij,      o = Linear(Σ_j m_ij), w = Linear(v_i)
        Δf_ij = SiLU(Linear(f)) <rej(A v_i, r̂_ij), rej(B v_j, r̂_ij)>,    rej(v, d) = v - (v·d) d

    arXiv 2502.01171, with r̂ from the receiver to the sender and the vectors of a link multiplied by the envelope, too,
    so that links end smoothly. What vanishes in a first layer, where v = 0, and what nobody reads after a last one is
    not there: it would be parameters without a gradient.

    Args:
        num_channels: d, of scalars and vectors.
        num_heads: of the attention; divides d.
        has_vectors: whether v comes in; else v = 0.
        gives_vectors: whether Δv is wanted.
        updates_links: whether Δf is wanted; needs ``has_vectors``.

    Raises:
        ConfigError: the heads do not divide the channels.
    """

    def __init__(
        self,
        num_channels: int,
        num_heads: int = 8,
        has_vectors: bool = True,
        gives_vectors: bool = True,
        updates_links: bool = True,
    ) -> None:
        super().__init__()
        if not is_whole(num_heads) or num_heads < 1 or num_channels % num_heads:
            raise ConfigError(f"num_channels must be a multiple of num_heads, got {num_channels} and {num_heads!r}.")
        d = num_channels
        self.num_heads, self.has_vectors, self.gives_vectors = num_heads, has_vectors, gives_vectors
        self.norm = nn.LayerNorm(d)
        self.from_receiver, self.from_sender = Dense([d, d]), Dense([d, 2 * d])
        self.from_link = Dense([d, 2 * d])
        # With vectors w1, w2 and o2, o3; where they come in and go out w3 and o1, too.
        self.turns = has_vectors and gives_vectors
        self.out = Dense([d, d * (1 + has_vectors + self.turns)])
        self.mix = nn.Parameter(torch.randn(d, d * (2 + self.turns))) if has_vectors else None
        self.to_vectors = Dense([d, d * (1 + has_vectors)]) if gives_vectors else None
        self.updates_links = updates_links and has_vectors
        if self.updates_links:
            self.link, self.link_vectors = Dense([d, d]), nn.Parameter(torch.randn(2, d, d))

    def forward(
        self,
        x: Tensor,
        v: Tensor | None,
        f: Tensor,
        links: Links,
        x_sent: Tensor | None = None,
        v_sent: Tensor | None = None,
    ) -> Changes:
        """Return the changes of x, v and f.

        Args:
            x: ``(receivers, d)``.
            v: ``(receivers, 3, d)``; not read without ``has_vectors``.
            f: ``(links, d)``.
            links: between senders and receivers.
            x_sent, v_sent: of the senders; None where they are the receivers themselves.
        """
        normed = self.norm(x)
        sent = normed if x_sent is None else self.norm(x_sent)
        v_sent = v if v_sent is None else v_sent
        message = self._messages(normed, sent, f, links)
        o3, *others = self.out(segment_sum(message, links.receivers, len(x))).split(x.shape[1], dim=1)
        scalars, vectors = o3, None
        if self.has_vectors:
            w1, w2, *w3 = (v @ (self.mix * self.mix.shape[0] ** -0.5)).split(x.shape[1], dim=2)
            scalars = scalars + (w1 * w2).sum(dim=1) * others[0]
        if self.gives_vectors:
            vectors = self._vectors(message, v_sent, links, len(x))
            if self.turns:
                vectors = vectors + w3[0] * others[1][:, None]
        return Changes(scalars, vectors, self._change_of_links(v, v_sent, f, links) if self.updates_links else None)

    def _messages(self, received: Tensor, sent: Tensor, f: Tensor, links: Links) -> Tensor:
        """Return m ``(links, d)``."""
        key, value = self.from_sender(sent).index_select(0, links.senders).chunk(2, dim=1)
        query = self.from_receiver(received).index_select(0, links.receivers)
        link_key, link_value = nn.functional.silu(self.from_link(f)).chunk(2, dim=1)
        score = (query * key * link_key).unflatten(1, (self.num_heads, -1)).sum(dim=2)
        width = f.shape[1] // self.num_heads
        attention = nn.functional.silu(score * width**-0.5) * links.envelope
        return value * link_value * attention.repeat_interleave(width, dim=1)

    def _vectors(self, message: Tensor, v_sent: Tensor | None, links: Links, num_receivers: int) -> Tensor:
        """Return ``Σ_j v_ij`` (receivers, 3, d)."""
        s2, *s1 = (nn.functional.silu(self.to_vectors(message)) * links.envelope).split(message.shape[1], dim=1)
        received = links.directions[:, :, None] * s2[:, None]
        if s1:
            received = received + v_sent.index_select(0, links.senders) * s1[0][:, None]
        return segment_sum(received.flatten(1), links.receivers, num_receivers).unflatten(1, (3, -1))

    def _change_of_links(self, v: Tensor, v_sent: Tensor, f: Tensor, links: Links) -> Tensor:
        scale = v.shape[2] ** -0.5
        a = (v @ (self.link_vectors[0] * scale)).index_select(0, links.receivers)
        b = (v_sent @ (self.link_vectors[1] * scale)).index_select(0, links.senders)
        d = links.directions[:, :, None]
        # <rej(a, d), rej(b, d)> = <a, b> - (a·d)(b·d)
        inner = (a * b).sum(dim=1) - (a * d).sum(dim=1) * (b * d).sum(dim=1)
        return nn.functional.silu(self.link(f)) * inner
