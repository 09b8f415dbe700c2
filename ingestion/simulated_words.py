"""Words for the titles of simulated videos: by category, what is shown and who shows it."""

from typing import Final, NamedTuple


class Theme(NamedTuple):
    """A category's things and the channels that show them."""

    subjects: tuple[str, ...]
    channels: tuple[str, ...]


THEMES: Final[dict[str, Theme]] = {
    "cooking": Theme(
        ("ramen", "sourdough bread", "dumplings", "street tacos", "a lemon tart", "kimchi"),
        ("Kitchen Nine", "Spoon & Salt", "Auntie Mei"),
    ),
    "football": Theme(
        ("a free kick", "the last-minute goal", "five-a-side", "a save", "dribbling drills", "the derby"),
        ("Touchline", "Sunday League", "Corner Flag"),
    ),
    "cats": Theme(
        ("a kitten", "the office cat", "two cats and a box", "a very loud cat", "the neighbour's cat"),
        ("Whisker Daily", "Paws Off", "The Purr Report"),
    ),
    "travel": Theme(
        ("Lisbon", "the night train", "a mountain hut", "Kyoto in the rain", "the Silk Road", "a desert camp"),
        ("Slow Roads", "Window Seat", "Carry-On"),
    ),
    "gaming": Theme(
        ("a speedrun", "the final boss", "a tiny base", "an indie gem", "ranked matches", "a secret level"),
        ("Pixel Pit", "Second Life Bar", "Frame Perfect"),
    ),
    "science": Theme(
        ("black holes", "a home-made battery", "octopus brains", "liquid nitrogen", "prime numbers", "the deep sea"),
        ("Bench Notes", "Curious Units", "Half-Life"),
    ),
    "music": Theme(
        ("a bass line", "an old synth", "a street choir", "jazz chords", "a bedroom demo", "drum fills"),
        ("Low Cut", "Blue Fader", "Encore Room"),
    ),
    "fitness": Theme(
        ("a morning stretch", "hill sprints", "the first pull-up", "a kettlebell set", "yoga for desks"),
        ("Ten Reps", "Bend & Lift", "Coach Okoro"),
    ),
    "gardens": Theme(
        ("balcony tomatoes", "a rain barrel", "bonsai pruning", "a wild corner", "seed saving", "moss"),
        ("Green Thumb Club", "Plot 14", "Root & Branch"),
    ),
    "repairs": Theme(
        ("a squeaky bicycle", "an old radio", "a cracked screen", "a wobbly chair", "a leaking tap"),
        ("Fix It Again", "The Spare Part", "Workbench"),
    ),
    "comedy": Theme(
        ("airport queues", "my first landlord", "group chats", "a wedding speech", "the open-plan office"),
        ("Dead Pan", "Mic Drop Live", "Back Row"),
    ),
    "fashion": Theme(
        ("thrift finds", "one coat, five ways", "mending jeans", "a linen suit", "sneakers from 1985"),
        ("Hem Line", "Second Hand News", "Cut & Drape"),
    ),
}
PATTERNS: Final = (
    "How to begin with {subject}",
    "{subject}, explained in one minute",
    "I tried {subject} for a week",
    "The truth about {subject}",
    "{subject}: what nobody tells you",
    "Three mistakes with {subject}",
    "A quiet evening with {subject}",
    "{subject}, but it keeps getting better",
)
