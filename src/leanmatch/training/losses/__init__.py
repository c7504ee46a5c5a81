"""Losses of the sentence-transformers form: ``loss(sentence_features, labels)``.

All share one interface and work unchanged in ``SentenceTransformerTrainer``:

- :class:`PlainLoss`: the contrastive loss alone
- :class:`MaskingLoss`: the contrastive loss on masked copies (augmentation only)
- :class:`OutReg`: contrastive loss plus drift of the scores
- :class:`ITVReg`: contrastive loss plus drift of the token effects
- :class:`DistillationLoss`: distance from a teacher's embeddings, for compressed models
"""

from leanmatch.training.losses.contrastive import PlainLoss
from leanmatch.training.losses.distillation import DistillationLoss
from leanmatch.training.losses.itvreg import ITVReg
from leanmatch.training.losses.masking import MaskingLoss
from leanmatch.training.losses.outreg import OutReg

__all__ = ["DistillationLoss", "ITVReg", "MaskingLoss", "OutReg", "PlainLoss"]
