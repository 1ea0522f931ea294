/* dialogue: files of conversations -> a stream of dialogues.  Owns the readers; tokenises nothing, cleans nothing (clean.h), stores nothing (shard.h).
 *
 *   .scene          authored scenes, expanded to readings (scene.h)
 *   text            one utterance a line, a blank line between dialogues; LF, CRLF and mixtures of both, BOM.  Any number of blank lines is
 *                   one border, and a newline at the end of the file is only the end of its line: no turn is ever empty (GPT2-chitchat's
 *                   preprocess.py turns a final newline into an empty utterance, hence one more [SEP])
 *   .tsv            DialoGPT: "0.0 src1 EOS 1.0 src2 TAB 1.0 target".  A turn's first word is its weight only when it is written as one:
 *                   0.ddd or 1.000, value at most 1; "2 weeks ago", "nan", "3.5 stars" keep their first word (prepro.py takes whatever float() takes).
 *                   White space inside a turn is squeezed to single spaces, as there
 *   .json           one value:   a dialogue, or an array of dialogues
 *   .jsonl .ndjson  a dialogue on each line
 *     a dialogue is  ["a", "b"]  |  {"turns": […]}  |  {"dialogue": […]}  |  {"conversations": […]}  |  {"messages": […]}
 *     a turn is      "a"  |  {"text"|"value"|"content": "a", "from"|"role"|"speaker": NAME, "weight": 0.5}; a NAME of "system" is left out
 *                    as it is no turn; user, human and "0" are the user, others the bot; without a NAME turns alternate, user first
 */
#ifndef DUET_DIALOGUE_H
#define DUET_DIALOGUE_H

#include "models/base.h"
#include "models/format.h"

typedef struct {
    turn       *turn;  /* (n,) text, speaker, weight; no ids yet */
    int         n;
    uint64_t    group; /* what must stay on one side of the held-out split: equal for all readings of a scene, else a hash of the text */
    const char *file;
    long        line;  /* where it starts, 1-based */
} dialogue;
/* Called for each dialogue; its memory is valid during the call only.  Not OK stops the reading and is handed on. */
typedef int dialogue_sink(void *ctx, const dialogue *d, err *e);

enum { INPUT_AUTO = 0, INPUT_TEXT, INPUT_SCENE, INPUT_TSV, INPUT_JSON, INPUT_JSONL };
int input_of_name(const char *s); /* "auto", "text", "scene", "tsv", "json", "jsonl"; -1 unknown */

typedef struct {
    int      type;     /* INPUT_…; AUTO = by the end of the file's name, text when it is none of the above */
    int      readings; /* most readings of one scene */
    uint64_t seed;     /* of the readings */
    int      skip_bad; /* 1: malformed lines of tsv and jsonl are counted and left out; 0: they are an error with file and line */
} read_opts;
typedef struct {
    uint64_t files, dialogues, bad_lines;
    uint64_t scenes;
    double   combinations; /* ways through the scenes, slots not counted */
} read_counts;

/* A file, or a folder: its *.scene files when it has any, else its *.txt, *.tsv, *.json, *.jsonl, *.ndjson, in the order of their names.  Scenes use the slots.txt of
 * their folder.  Counts are added to. */
int dialogue_read(const char *path, const read_opts *o, read_counts *c, dialogue_sink *sink, void *ctx, err *e);
/* The same for bytes in memory; type is not AUTO, and scenes have no slots. */
int dialogue_read_bytes(str bytes, const char *name, const read_opts *o, read_counts *c, dialogue_sink *sink, void *ctx, err *e);

/* For readers: a growing list of turns whose texts are views. */
typedef struct {
    turn  *v;
    size_t n, cap;
} turn_list;
int  turn_list_add(turn_list *l, str text, int speaker, float weight, err *e);
void turn_list_free(turn_list *l);
/* Hash of the texts of the turns, in order. */
uint64_t dialogue_group(const turn *t, int n);
/* The next line of *rest without its end (LF or CRLF); 0 when there is none. */
int next_line(str *rest, str *line);

#endif
