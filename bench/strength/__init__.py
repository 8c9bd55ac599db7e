"""How strong the cascades are beside the authors' AutoAttack, on fixed networks: `gauntlet strength`."""
