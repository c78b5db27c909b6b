"""The phrases that generated ads are put together from: data only.

In `RISKS`, a category is a list of (template, options for each of its slots), so that a few lines
make many sentences. `DECOYS` are harmless words that only look risky.
"""

BRANDS = (
    "Alder",
    "Brio",
    "Corva",
    "Dunmore",
    "Elara",
    "Fenwick",
    "Galen",
    "Hollis",
    "Isola",
    "Juno",
    "Kestrel",
    "Lumen",
    "Marlow",
    "Norde",
    "Orla",
    "Pikewood",
)
MATERIALS = (
    "cotton",
    "linen",
    "wool",
    "recycled",
    "organic",
    "soft",
    "classic",
    "lightweight",
    "everyday",
    "handmade",
    "slim",
    "relaxed",
)
TITLES = (
    "{brand} {colour} {noun}",
    "{colour} {noun} by {brand}",
    "{material} {colour} {noun}",
    "{brand} {material} {noun} in {colour}",
    "new {colour} {noun}",
    "{colour} {noun}",
)
OPENINGS = (
    "A {material} {noun} for every day.",
    "Our {colour} {noun} is back in stock.",
    "This {noun} comes in {colour} and four other colours.",
    "Made from {material} fabric.",
    "Meet the new {noun} from {brand}.",
    "Designed by {brand} for work and weekends.",
    "A simple {colour} {noun} that goes with anything.",
    "Spring collection: {material} {noun}.",
)
OFFERS = (
    "Free returns within 30 days.",
    "Ships in two days.",
    "Now 20% off until Sunday.",
    "Available in sizes S to XL.",
    "Machine washable at 30 degrees.",
    "See the size guide.",
    "Visit our store or order online.",
    "Ten percent off your first order.",
    "Two year warranty.",
    "Pay on delivery.",
    "Gift wrapping available.",
    "Rated 4.3 by buyers.",
)
DECOYS = (
    "Goes well with wine red shoes.",
    "With a small dice print.",
    "Comes with a card holder pocket.",
    "Bottle green edition.",
    "Tobacco brown leather label.",
    "Pistachio lining.",
    "A cash pocket inside.",
    "Healthy discount for members.",
    "Sharp cut, clean lines.",
    "Smoke grey buttons.",
    "A safe bet for any wardrobe.",
    "Best worn loose.",
    "Coin pocket on the side.",
    "Shot of colour for winter.",
    "Click here for the size guide.",
)

Grammar = tuple[str, tuple[tuple[str, ...], ...]]
RISKS: dict[str, tuple[Grammar, ...]] = {
    "exaggerated_claims": (
        (
            "{} {} in the {}!",
            (
                ("The best", "The number one", "The most perfect", "The finest"),
                ("product", "quality", "choice", "brand"),
                ("world", "universe", "country", "whole industry"),
            ),
        ),
        (
            "{} {} or nothing beats it.",
            (
                ("100% perfect,", "Absolutely flawless,", "Unmatched,"),
                ("guaranteed forever", "never fails", "always wins"),
            ),
        ),
        (
            "{} that changes {} overnight.",
            (
                ("A miracle", "A magic find", "A revolution"),
                ("your life", "everything", "the world"),
            ),
        ),
    ),
    "gambling": (
        (
            "{} at our {} {}.",
            (
                ("Bet now", "Place your bets", "Spin and win", "Play roulette"),
                ("online", "live", "new"),
                ("casino", "poker room", "betting site"),
            ),
        ),
        (
            "{} {} on every {}.",
            (
                ("Win the", "Hit the", "Take the"),
                ("jackpot", "big pot"),
                ("slot spin", "wager", "blackjack hand"),
            ),
        ),
        (
            "{} free {} for new players.",
            (
                ("Claim", "Get", "Collect"),
                ("casino chips", "bets", "slot spins", "lottery tickets"),
            ),
        ),
    ),
    "alcohol": (
        (
            "{} a {} of {} with it.",
            (
                ("Enjoy", "Order", "Drink"),
                ("bottle", "glass", "case"),
                ("whisky", "vodka", "red wine", "craft beer", "rum", "gin"),
            ),
        ),
        (
            "{} {} tonight at {}.",
            (
                ("Cheap", "Strong", "Cold"),
                ("cocktails", "beers", "shots"),
                ("our bar", "happy hour", "the pub"),
            ),
        ),
    ),
    "tobacco": (
        (
            "{} {} {}.",
            (
                ("Smoke our", "Buy a pack of", "Try smooth", "Light up"),
                ("menthol", "premium", "hand rolled", "flavoured"),
                ("cigarettes", "cigars", "rolling tobacco"),
            ),
        ),
        (
            "{} {} with every order.",
            (("A free", "One more"), ("nicotine vape", "cigarette carton", "cigar box")),
        ),
    ),
    "weapons": (
        (
            "{} {} {} in stock.",
            (
                ("Tactical", "Combat", "Military grade"),
                ("hunting", "assault", "concealed"),
                ("rifles", "knives", "guns", "pistols"),
            ),
        ),
        (
            "{} {} without a {}.",
            (
                ("Buy", "Get", "Order"),
                ("ammunition", "a handgun", "a shotgun", "switchblades"),
                ("licence", "permit", "background check"),
            ),
        ),
    ),
    "financial_promises": (
        (
            "{} your {} in {}.",
            (
                ("Double", "Triple", "Multiply"),
                ("money", "savings", "income", "investment"),
                ("seven days", "a week", "one month", "24 hours"),
            ),
        ),
        (
            "{} {} returns, {}.",
            (
                ("Guaranteed", "Promised", "Risk free"),
                ("daily", "30% monthly", "passive"),
                ("no risk at all", "get rich from home"),
            ),
        ),
        (
            "Earn {} a {} from {}.",
            (
                ("5000 dollars", "a fortune", "easy cash"),
                ("day", "week"),
                ("crypto trading", "your sofa", "our secret system"),
            ),
        ),
    ),
    "health_claims": (
        (
            "{} {} in {}.",
            (
                ("Cures", "Heals", "Gets rid of"),
                ("diabetes", "back pain", "cancer", "anxiety", "arthritis"),
                ("days", "one week", "a single use"),
            ),
        ),
        (
            "{} {} without {}.",
            (
                ("Lose", "Melt", "Burn off"),
                ("ten kilos", "belly fat", "all your weight"),
                ("diet", "exercise", "seeing a doctor"),
            ),
        ),
        (
            "{} {} your {}.",
            (
                ("Doctors hate it:", "Clinically proven:", "Secret remedy:"),
                ("detoxes", "repairs", "rejuvenates"),
                ("liver", "heart", "immune system"),
            ),
        ),
    ),
    "misleading_button": (
        (
            "{} {} to {}.",
            (
                ("Tap the X", "Press close", "Click OK", "Hit the play button"),
                ("now", "below", "here"),
                ("remove this ad", "claim your prize", "start the download", "fix your phone"),
            ),
        ),
        (
            "{} {}: {}.",
            (
                ("Warning", "System alert", "Message"),
                ("1 virus found", "update needed", "battery damaged"),
                ("download now", "install cleaner", "press OK"),
            ),
        ),
    ),
}
SHOUTS = (
    "buy buy buy",
    "wow",
    "cheep",
    "best prise",
    "plz click",
    "dont wait",
    "u need dis",
    "amazin",
    "super dooper",
    "hury up",
    "last chanse",
    "omg",
)
BITS = (
    "SALE",
    "2x1",
    "-50%",
    "new",
    "hot",
    "bonus",
    "gift",
    "extra",
    "deal",
    "top",
    "promo",
    "vip",
    "max",
    "plus",
    "free",
    "today only",
    "code A1",
    "call us",
    "4 for 3",
    "link",
)
