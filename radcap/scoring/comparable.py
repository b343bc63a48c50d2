"""What the figures of an evaluation may be compared with, and what not."""

CARD_LOSS = 0.7637

COMPARABLE = {
    "loss": (
        "The loss and perplexity here are token-true: the sum of the cross-entropies of all target "
        "tokens (BERT word pieces and the closing [SEP], no padding) over their number, in "
        "evaluation mode. They may be compared with those of other weights on the same rows of the "
        "same revision, with the same `data.max_length`."
    ),
    "card": (
        f"The published model card states a loss of {CARD_LOSS}. That is a training loss after "
        "2,250 steps, on rows that were trained on; over how many tokens it is a mean, and whether "
        "padding is among them, is not known. No figure here may be set against it. What can be "
        "compared is the card's own pytorch_model.bin, scored here (`evaluate.weights`) on the "
        "same rows as other weights."
    ),
    "texts": (
        "A caption's wording is partly chance (which phrase for the modality, which synonym, which "
        "form of the finding), so BLEU, ROUGE-L and CIDEr-D under-rate a right caption; the slots "
        "do not. CIDEr-D weighs words by the references of the rows scored: compare it on one set "
        "of rows."
    ),
    "intervals": (
        "Intervals are 95 % percentile intervals of a bootstrap over the rows. They tell how far "
        "other rows of the same kind would move a figure, not how far another training seed would. "
        "Where all N rows are right the interval has no width; up to 3/N of other rows may still "
        "be wrong (the rule of three)."
    ),
}
