"""The label vocabulary of RadImageNet-VQA: modalities, locations, pathologies and their words.

Shared by the phantom data set, which writes captions from labels, and by scoring, which reads
labels from captions. Label values are spelt as in the real metadata, traps included (trailing
underscores, "pituatary", "ca++"). The counts are the data set's own MRI label counts, 604,775 rows
over train and val; counts for CT are not published, so the CT table says what was assumed.
"""

from __future__ import annotations

from dataclasses import dataclass

NORMAL = "normal"


@dataclass(frozen=True, order=True)
class Labels:
    """What is known of an image, raw spelling as in the metadata; None where nothing is known.

    Sorting them gives the order of the stored rows: ASCII, capitals first.
    """

    modality: str | None = None
    location: str | None = None
    pathology: str | None = None
    abnormal: bool | None = None

    @classmethod
    def of(cls, modality: str | None, location: str | None, pathology: str | None) -> Labels:
        """Labels with `abnormal` read off the pathology: every one but `normal` is abnormal."""
        abnormal = None if pathology is None else _plain(pathology) != NORMAL
        return cls(modality, location, pathology, abnormal)


# The five phrases a caption may open with. All of mri's and two of ct's ("ct scan", "ct
# examination") were seen in the real data or in the model card; the rest are made up alike.
MODALITY_PHRASES: dict[str, tuple[str, ...]] = {
    "ct": (
        "ct examination",
        "ct scan",
        "ct imaging",
        "computed tomography",
        "diagnostic computed tomography",
    ),
    "mri": (
        "magnetic resonance imaging",
        "diagnostic magnetic resonance imaging",
        "mr scan",
        "mri scan",
        "mri examination",
    ),
}

# Shorter words for a modality: read from captions, never written by the phantom.
MODALITY_WORDS: dict[str, tuple[str, ...]] = {
    "ct": ("ct", "cat scan"),
    "mri": ("mri", "mr", "magnetic resonance"),
}

# The word that follows the location's name: "of the lung chest". Those of ankle foot, lung and
# spine were seen; the others are made up. No synonym is also a location or part of a pathology.
LOCATION_SYNONYMS: dict[str, tuple[str, str]] = {
    "abdomen": ("abdominal", "belly"),
    "ankle foot": ("foot", "ankle"),
    "brain": ("head", "cranial"),
    "hip": ("hip joint", "pelvis"),
    "knee": ("knee joint", "leg"),
    "lung": ("respiratory", "chest"),
    "shoulder": ("shoulder joint", "shoulder girdle"),
    "spine": ("spinal", "spinal column"),
}

FINDING_FORMS: tuple[str, ...] = (
    "displays {}",
    "showing evidence of {}",
    "with findings consistent with {}",
    "with {} present",
)

MRI_LOCATION_COUNTS: dict[str, int] = {
    "abdomen": 82_563,
    "ankle foot": 162_517,
    "brain": 40_001,
    "hip": 46_477,
    "knee": 161_744,
    "shoulder": 47_206,
    "spine": 64_267,
}
CT_COUNT = 228_902
MRI_COUNT = sum(MRI_LOCATION_COUNTS.values())

# Names that belong to one region.
MRI_PATHOLOGY_COUNTS: dict[str, dict[str, int]] = {
    "ankle foot": {
        "Plantar_plate_tear": 599,
        "achilles_pathology_": 8_277,
        "atfl_pathology": 10_819,
        "cfl_pathology": 3_851,
        "coalition": 58,
        "deltoid_pathology": 2_478,
        "extensor_pathology_": 618,
        "fat_containing_tumor": 244,
        "flexor_pathology_": 3_259,
        "lisfranc_pathology": 47,
        "peroneal_pathology": 6_589,
        "plantar_fascia_pathology": 5_752,
        "spring_ligament_injury": 97,
        "syndesmosis_pathology": 343,
    },
    "brain": {
        "acute_infarct": 448,
        "arteriovenous_anomaly": 241,
        "chronic_infarct": 2_040,
        "edema": 111,
        "extra": 1_113,
        "focal_flair_hyper": 672,
        "pituatary_lesion": 69,
        "white_matter_changes": 9_185,
    },
    "hip": {
        "abductor_pathology_": 765,
        "capsular_pathology": 109,
        "hamstring_pathology": 212,
    },
    "knee": {
        "acl_pathology": 9_059,
        "fcl_pathology": 408,
        "mcl_pathology": 7_123,
        "meniscal_abnormality": 40_498,
        "muscle_strain": 464,
        "patella_pathology": 1_266,
        "pcl_pathology": 667,
        "post_operative_acl": 77,
        "quad_pathology": 450,
    },
    "abdomen": {
        "adrenal_pathology": 581,
        "arterial_pathology": 76,
        "ascites": 699,
        "bil_dil": 216,
        "bladder_pathology": 130,
        "bowel_abnormality": 151,
        "bowel_inflammation": 239,
        "bowel_mass": 93,
        "degenerative_changes": 165,
        "dilated_urinary_tract": 55,
        "enlarged_organ": 183,
        "gallbladder_pathology": 434,
        "intraperitoneal_mass": 804,
        "liver_disease_": 971,
        "liver_lesion": 2_987,
        "marrow_abn": 649,
        "ovarian_pathology": 1_673,
        "pancreatic_lesion": 996,
        "prostate_lesion": 65,
        "renal_lesion": 1_834,
        "soft_tissue_collection": 161,
        "splenic_lesion": 214,
        "uterine_pathology": 3_219,
    },
    "shoulder": {
        "acj_oa": 2_392,
        "biceps_pathology": 1_450,
        "ca++_tendinosis": 69,
        "ghj_oa": 2_618,
        "infraspinatus_pathology": 80,
        "subscapularis_pathology": 128,
        "supraspinatus_pathology": 4_680,
    },
    "spine": {
        "cord_pathology_": 642,
        "cystic_lesions": 1_221,
        "disc_pathology": 29_370,
        "dural_epidural_abn": 7_410,
        "facet_arthropathy": 325,
        "foraminal_pathlogy": 10_735,
        "osseous_abn": 2_095,
        "scoliosis": 1_807,
    },
}

# Names that recur in several regions: total count, and the regions assumed (the real split over
# regions is not published).
MRI_SHARED_COUNTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "bone_inflammation": (36_099, ("ankle foot", "knee")),
    "chondral_abnormality": (85_073, ("ankle foot", "knee")),
    "chondral_pathology": (7_260, ("hip", "shoulder")),
    "fracture": (1_402, ("knee", "shoulder", "spine")),
    "hematoma": (747, ("ankle foot", "hip", "knee")),
    "intra": (5_954, ("ankle foot", "brain")),
    "labral_pathology": (36_163, ("hip", "shoulder")),
    "marrow_inflammation": (4_295, ("hip", "shoulder", "spine")),
    "normal": (122_553, tuple(MRI_LOCATION_COUNTS)),
    "osseous_disruption": (11_826, ("ankle foot", "hip", "knee", "shoulder")),
    "osseous_lesion": (2_364, ("abdomen", "hip", "shoulder")),
    "osseous_neoplasm": (1_317, ("ankle foot", "knee", "shoulder")),
    "post_op": (5_659, ("ankle foot", "hip", "knee", "shoulder", "spine")),
    "soft_tissue_edema": (15_691, ("ankle foot", "hip", "knee", "shoulder")),
    "soft_tissue_fluid": (37_215, ("abdomen", "ankle foot", "hip", "knee", "shoulder")),
    "soft_tissue_fluid_collection": (23_060, ("abdomen", "knee", "shoulder")),
    "soft_tissue_mass": (8_472, ("ankle foot", "hip", "knee", "shoulder")),
}

# Shares of the CT rows. The names are RadImageNet's; the shares are assumed: half lung, and a
# fifth of each location normal as in MRI. The rest of CT abdomen is a tenth entire_organ, then the
# names that belong to the abdomen by their MRI counts.
CT_LOCATION_SHARES: dict[str, float] = {"abdomen": 0.5, "lung": 0.5}
CT_NORMAL_SHARE = 0.2
CT_LUNG_SHARES: dict[str, float] = {
    "airspace_opacity": 0.25,
    "bronchiectasis": 0.15,
    "interstitial_lung_disease": 0.2,
    "nodule": 0.25,
    "parenchyma_destruction": 0.15,
}
CT_ENTIRE_ORGAN = "entire_organ"
CT_ENTIRE_ORGAN_SHARE = 0.1

# Labels that captions do not spell letter for letter. The first name of each is what the phantom
# writes: of the known wordings of a normal image neither "normal" nor "no pathology seen" fits all
# four finding forms ("with no pathology seen present"), "normal anatomy" does.
DISPLAY_NAMES: dict[str, tuple[str, ...]] = {
    NORMAL: ("normal anatomy", "no pathology seen", "normal"),
    CT_ENTIRE_ORGAN: ("abnormal entire organ", "entire organ"),
}

MODALITIES: tuple[str, ...] = tuple(MODALITY_PHRASES)
LOCATIONS: tuple[str, ...] = tuple(LOCATION_SYNONYMS)
PATHOLOGIES: tuple[str, ...] = tuple(
    sorted(
        {name for block in MRI_PATHOLOGY_COUNTS.values() for name in block}
        | MRI_SHARED_COUNTS.keys()
        | CT_LUNG_SHARES.keys()
        | {CT_ENTIRE_ORGAN}
    )
)


def display_name(label: str) -> str:
    """A raw label as captions spell it: lower case, underscores to spaces, stripped.

    Works for any string, so that labels unknown to this file are spelt by the same rule.
    """
    if label in DISPLAY_NAMES:
        return DISPLAY_NAMES[label][0]
    return _plain(label)


def _plain(label: str) -> str:
    return " ".join(label.lower().replace("_", " ").split())
