"""What the drawn creatives can be about: the names that labels, captions and checks share.

Data only. Every other file of this folder reads its class, colour and label names here, so a new
product or risk is added in one place (and given a shape in `shapes.py`).
"""

CLOTHING = (
    "dress",
    "hat",
    "longsleeve",
    "outwear",
    "pants",
    "shirt",
    "shoes",
    "shorts",
    "skirt",
    "t-shirt",
)
GOODS = ("mug", "bag", "phone", "lamp", "watch", "book")

# What a drawn object gives away: label -> (object name -> how a caption says it).
PROPS: dict[str, dict[str, str]] = {
    "alcohol": {
        "bottle": "a bottle of beer",
        "wine_glass": "a glass of red wine",
        "beer_mug": "a mug of beer",
    },
    "tobacco": {"cigarette": "a smoking cigarette", "cigarette_pack": "a pack of cigarettes"},
    "gambling": {
        "dice": "a pair of gambling dice",
        "cards": "poker playing cards",
        "chips": "casino chips",
    },
    "weapons": {"knife": "a combat knife weapon", "pistol": "a pistol gun"},
    "financial_promises": {
        "coins": "stacks of gold coins",
        "chart": "money with a rising profit chart",
    },
    "health_claims": {"pills": "medicine pills", "syringe": "a medical syringe"},
    "exaggerated_claims": {"burst": "a number one best sticker"},
}

RISKS = (
    "exaggerated_claims",
    "gambling",
    "alcohol",
    "tobacco",
    "weapons",
    "financial_promises",
    "health_claims",
)
EXPERIENCE = ("low_quality", "misleading_button", "clutter")
LABELS = RISKS + EXPERIENCE

# How a caption says what is wrong with the picture itself.
EXPERIENCE_CAPTIONS = {
    "low_quality": "blurry low quality picture",
    "misleading_button": "a fake download button",
    "clutter": "a cluttered mess of stickers",
}

# Class name -> what people call it: in captions, titles and text templates.
NOUNS: dict[str, str] = {
    "longsleeve": "long sleeve top",
    "outwear": "outerwear jacket",
    "shirt": "button-up shirt",
    "pants": "pants",
    "shoes": "shoes",
    "phone": "mobile phone",
    "bag": "handbag",
    "watch": "wrist watch",
    "lamp": "table lamp",
    "mug": "coffee mug",
}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 32, 38),
    "blue": (38, 78, 190),
    "green": (34, 140, 62),
    "yellow": (240, 205, 40),
    "orange": (238, 130, 30),
    "purple": (122, 48, 150),
    "pink": (240, 130, 170),
    "brown": (120, 76, 42),
    "grey": (130, 130, 134),
    "black": (28, 28, 32),
    "white": (246, 246, 244),
}


def noun(name: str) -> str:
    """The everyday words for a class or prop name, e.g. `outwear` -> "outerwear jacket"."""
    return NOUNS.get(name, name.replace("_", " "))
