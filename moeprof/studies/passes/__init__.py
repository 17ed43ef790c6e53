"""The passes of a study, one file each: they are separate because instruments disturb each other and the clock."""
