"""Which statistics the teacher of consistency uses: the paper's recipes have its text's."""

from warpseg.trainers.methods.settings.consistency import ConsistencySettings
from warpseg.trainers.recipes.one_way import ONE_WAY
from warpseg.trainers.recipes.registry import RECIPES


def test_the_papers_recipes_have_its_texts_teacher():
    made = [recipe() for recipe in ONE_WAY.values()]
    teachers = {s.teacher_batch_norm for s in made if isinstance(s, ConsistencySettings)}
    assert teachers == {"running"}


def test_pretrained_networks_have_batch_statistics_and_those_from_scratch_the_texts():
    others = {name: recipe() for name, recipe in RECIPES.items() if name not in ONE_WAY}
    made = {n: s for n, s in others.items() if isinstance(s, ConsistencySettings)}
    for name, settings in made.items():
        scratch = "swiftnet18" in name
        assert settings.teacher_batch_norm == ("running" if scratch else "batch"), name
