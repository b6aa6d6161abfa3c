"""The words of the restaurants: names, landmarks, values, and how each slot's value is said. All of it made up here.

ADJECTIVES stand before the kind of place, SERVING and WITH behind it, PREDICATES after "it".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Words = Mapping[str, Mapping[str, Sequence[str]]]  # slot -> value -> ways to say it

NAMES = (
    "Juniper House", "The Copper Ladle", "Saltmarsh", "The Blind Otter", "Number Nine", "The Lantern Room", "Verbena",
    "The Crooked Spoon", "Marigold", "Harrow and Vine", "The Tin Kettle", "Bramble", "The Velvet Fig", "Quince",
    "Oakley's", "The Paper Heron", "Sorrel", "The Old Granary", "Thistle and Rye", "The Amber Door", "Peppercorn",
    "The Idle Hen", "Larder Street", "The Glass Onion Rooms", "Nettlefold", "The Wandering Goose", "Cinder",
    "The Two Magpies", "Fable", "The Pewter Cup", "Hazelmere", "The Long Table", "Damson", "The Quiet Fox", "Tamarind",
    "The Silver Thimble", "Mortimer's", "The Yellow Gate", "Rookery", "The Seventh Step",
)  # fmt: skip
LANDMARKS = (
    "Marlow Station", "St Anselm's Church", "Tilney Park", "Ferry Lane Market", "Hobson's Bridge", "Castle Green",
    "Larkfield Library", "Wexford Square", "Pinder's Bookshop", "Fenton Theatre", "Drayton College", "Albion Works",
)  # fmt: skip
NOUNS = ("place", "spot", "venue")  # where the meaning does not say what kind of place it is
NEAR = ("near", "close to", "not far from", "a short walk from")

VALUES = {
    "eatType": ("restaurant", "pub", "coffee shop"),
    "food": ("English", "French", "Italian", "Indian", "Japanese", "Chinese", "Fast food"),
    "priceRange": ("cheap", "moderate", "high", "less than £20", "£20-25", "more than £30"),
    "customer rating": ("low", "average", "high", "1 out of 5", "3 out of 5", "5 out of 5"),
    "area": ("city centre", "riverside"),
    "familyFriendly": ("yes", "no"),
}

_CUISINES = VALUES["food"][:-1]
_STARS = {f"{number} out of 5": number for number in (1, 3, 5)}

ADJECTIVES: Words = {
    "food": {food: (food,) for food in _CUISINES} | {"Fast food": ("fast food",)},
    "priceRange": {
        "cheap": ("cheap", "inexpensive", "low-priced"),
        "moderate": ("moderately priced", "mid-priced"),
        "high": ("expensive", "high-priced"),
    },
    "customer rating": {"low": ("poorly rated", "low-rated"), "high": ("highly rated", "well-rated")},
    "familyFriendly": {"yes": ("family-friendly", "child-friendly"), "no": ("adults-only",)},
}

SERVING: Words = {
    "food": {food: (f"serving {food} food", f"that serves {food} dishes") for food in _CUISINES}
    | {"Fast food": ("serving fast food", "that serves fast food")}
}

WITH: Words = {
    "priceRange": {
        "cheap": ("low prices", "cheap prices"),
        "moderate": ("moderate prices", "mid-range prices"),
        "high": ("high prices", "expensive prices"),
        "less than £20": ("prices of less than £20", "prices under £20"),
        "£20-25": ("prices of £20-25", "prices between £20 and £25"),
        "more than £30": ("prices of more than £30", "prices over £30"),
    },
    "customer rating": {
        "low": ("a low customer rating", "poor reviews"),
        "average": ("an average customer rating", "average reviews"),
        "high": ("a high customer rating", "excellent reviews"),
    }
    | {stars: (f"a customer rating of {stars}", f"a {n} out of 5 rating") for stars, n in _STARS.items()},
}

PREDICATES: Words = {
    "food": {food: (f"serves {food} food", f"offers {food} cuisine", f"has {food} dishes") for food in _CUISINES}
    | {"Fast food": ("serves fast food", "offers fast food")},
    "priceRange": {
        "cheap": ("is cheap", "has low prices", "is inexpensive"),
        "moderate": ("has moderate prices", "is moderately priced", "is in the moderate price range"),
        "high": ("is expensive", "has high prices", "is in the high price range"),
        "less than £20": ("has meals for less than £20", "charges under £20", "has a price range of less than £20"),
        "£20-25": ("charges £20-25", "has a price range of £20-25", "has meals for between £20 and £25"),
        "more than £30": ("charges over £30", "has a price range of more than £30", "has meals for more than £30"),
    },
    "customer rating": {
        "low": ("has a low customer rating", "is rated poorly by its customers", "gets poor reviews"),
        "average": ("has an average customer rating", "is rated average by its customers", "gets average reviews"),
        "high": ("has a high customer rating", "is rated highly by its customers", "gets excellent reviews"),
    }
    | {stars: (f"is rated {stars}", f"has a customer rating of {stars}", f"scores {stars}") for stars in _STARS},
    "familyFriendly": {
        "yes": ("is family-friendly", "welcomes families", "is suitable for children", "welcomes children"),
        "no": ("is not family-friendly", "does not welcome children", "is for adults only", "is not for families"),
    },
}

WHERE: Words = {
    "area": {
        "city centre": ("in the city centre", "in the centre of the city"),
        "riverside": ("by the river", "at the riverside", "in the riverside area"),
    }
}
