"""One layer of scalars and vectors: attention over neighbours, which may be atoms or centres of fragments."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.dense import Dense
from mlip.ops.segment import segment_sum


class Links(NamedTuple):
    """Who sends to whom.

    Attributes:
        senders, receivers: ``(links,)``; receivers ascending.
        directions: ``(links, 3)`` unit vectors from the receiver to the sender.
        envelope: ``(links, 1)``: one at distance zero, zero from the cutoff on.
    """

    senders: Tensor
    receivers: Tensor
    directions: Tensor
    envelope: Tensor


class VectorLayer(nn.Module):
    """Attention with scalars x, vectors v and features f of the links (ViSNet and LSRM as SPHNet uses them).

        a_ij = SiLU( Σ_head q_i k_j dk_ij ) env(r_ij),          q, k, u = Linear(LayerNorm(x)), dk, du = SiLU(Linear(f))
        m_ij = u_j du_ij a_ij,  (s1, s2) = SiLU(Linear(m_ij)),  v_ij = v_j s1 + r̂_ij s2 env(r_ij)
        Δx_i = <w1, w2> o2 + o3,  Δv_i = w3 o1 + Σ_j v_ij,      o = Linear(Σ_j m_ij), w = Linear(v_i)
        Δf_ij = SiLU(Linear(f)) <rej(A v_i, r̂_ij), rej(B v_j, r̂_ij)>,    rej(v, d) = v - (v·d) d

    arXiv 2502.01171, with r̂ from the receiver to the sender and the vectors of a link multiplied by the envelope, too,
    so that links end smoothly.

    Args:
        num_channels: d, of scalars and vectors.
        num_heads: of the attention; divides d.
        update_links: whether f changes.

    Raises:
        ConfigError: the heads do not divide the channels.
    """

    def __init__(self, num_channels: int, num_heads: int = 8, update_links: bool = True) -> None:
        super().__init__()
        if num_channels % num_heads:
            raise ConfigError(f"num_channels must be a multiple of the {num_heads} heads, got {num_channels}.")
        d = num_channels
        self.num_heads, self.update_links = num_heads, update_links
        self.norm = nn.LayerNorm(d)
        self.from_receiver, self.from_sender = Dense([d, d]), Dense([d, 2 * d])
        self.from_link, self.to_vectors, self.out = Dense([d, 2 * d]), Dense([d, 2 * d]), Dense([d, 3 * d])
        self.mix = nn.Parameter(torch.randn(d, 3 * d))
        if update_links:
            self.link, self.link_vectors = Dense([d, d]), nn.Parameter(torch.randn(2, d, d))

    def forward(
        self, x: Tensor, v: Tensor, f: Tensor, links: Links, x_sent: Tensor | None = None, v_sent: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the changes of x, v and f.

        Args:
            x: ``(receivers, d)``.
            v: ``(receivers, 3, d)``.
            f: ``(links, d)``.
            links: between senders and receivers.
            x_sent, v_sent: of the senders; None where they are the receivers themselves.
        """
        normed = self.norm(x)
        sent = normed if x_sent is None else self.norm(x_sent)
        v_sent = v if v_sent is None else v_sent
        key, value = self.from_sender(sent).index_select(0, links.senders).chunk(2, dim=1)
        query = self.from_receiver(normed).index_select(0, links.receivers)
        link_key, link_value = nn.functional.silu(self.from_link(f)).chunk(2, dim=1)
        score = (query * key * link_key).unflatten(1, (self.num_heads, -1)).sum(dim=2)
        width = x.shape[1] // self.num_heads
        attention = nn.functional.silu(score * width**-0.5) * links.envelope
        message = value * link_value * attention.repeat_interleave(width, dim=1)
        first, second = (nn.functional.silu(self.to_vectors(message)) * links.envelope).chunk(2, dim=1)
        received = v_sent.index_select(0, links.senders) * first[:, None] + links.directions[:, :, None] * second[:, None]
        o1, o2, o3 = self.out(segment_sum(message, links.receivers, len(x))).chunk(3, dim=1)
        w1, w2, w3 = (v @ (self.mix * self.mix.shape[0] ** -0.5)).chunk(3, dim=2)
        change_x = (w1 * w2).sum(dim=1) * o2 + o3
        change_v = w3 * o1[:, None] + segment_sum(received.flatten(1), links.receivers, len(x)).view_as(v)
        return change_x, change_v, self._change_of_links(v, v_sent, f, links)

    def _change_of_links(self, v: Tensor, v_sent: Tensor, f: Tensor, links: Links) -> Tensor:
        if not self.update_links:
            return torch.zeros_like(f)
        scale = v.shape[2] ** -0.5
        a = (v @ (self.link_vectors[0] * scale)).index_select(0, links.receivers)
        b = (v_sent @ (self.link_vectors[1] * scale)).index_select(0, links.senders)
        d = links.directions[:, :, None]
        # <rej(a, d), rej(b, d)> = <a, b> - (a·d)(b·d)
        inner = (a * b).sum(dim=1) - (a * d).sum(dim=1) * (b * d).sum(dim=1)
        return nn.functional.silu(self.link(f)) * inner
