/* scene: authored dialogues written once and readable many ways (corpus/scenes/FORMAT.md).  Owns the syntax, its checks and the expansion.
 *
 * A scene is a block of lines "U: …", "B: …" in turn, 2 to 12 of them, ended by a blank line.  A line holds alternatives separated by " | "; an alternative may hold
 * choices "[a|b|]" (not nested) and slots "{name}", "{name2}" (the same name has the same value through the scene, "name2" another value of
 * the same list).  Lines that start with '#' are comments.  Everything else is an error that names file and line. */
#ifndef DUET_SCENE_H
#define DUET_SCENE_H

#include "corpus/dialogue.h"

typedef struct scene_slots scene_slots;
/* slots.txt: "name: value | value …", '#' comments.  Refuses names used twice, empty and repeated values. */
int  scene_slots_read(scene_slots **s, const char *path, err *e);
void scene_slots_free(scene_slots *s); /* NULL is fine */

/* Up to o->readings readings of each scene, no two alike.  Alternatives of a line are dealt like cards (each comes once before any comes again), choices and
 * slot values are drawn; all of it from rng(o->seed, hash of the scene), so a scene reads the same wherever it stands. slots may be NULL. */
int scene_read(str bytes, const char *name, const scene_slots *slots, const read_opts *o, read_counts *c, dialogue_sink *sink, void *ctx, err *e);

#endif
