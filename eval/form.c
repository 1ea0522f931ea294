/* form: see form.h. */
#include "eval/form.h"

#include <stdlib.h>
#include <string.h>

#include "dialog/json.h"
#include "eval/csv.h"
#include "eval/page.h"

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for a form"); }

/* ---- the page -------------------------------------------------------------------------------------------------- */

static const char style[] =
    ":root{--bg:#fff;--fg:#1d2329;--soft:#5b6670;--line:#d9dee3;--card:#f5f7f9;--on:#2f6db5;--on-fg:#fff}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14181c;--fg:#e4e8eb;--soft:#9aa5b0;--line:#333b43;--card:#1d2329;--on:#6aa5e8;--on-fg:#10151a}}\n"
    "*{box-sizing:border-box}body{margin:0 auto;padding:.8rem;max-width:46rem;background:var(--bg);color:var(--fg);overflow-wrap:anywhere;"
    "font:17px/1.5 system-ui,\"Noto Sans CJK SC\",\"PingFang SC\",\"Microsoft YaHei\",sans-serif}\n"
    "h1{font-size:1.15rem;margin:.2rem 0}p{margin:.4rem 0}.soft,summary{color:var(--soft);font-size:.9rem}\n"
    "progress{width:100%;height:.5rem;accent-color:var(--on)}\n"
    ".talk{background:var(--card);border-radius:.5rem;padding:.5rem .8rem;margin:.6rem 0}.talk p{margin:.15rem 0}.talk b{display:inline-block;min-width:1.4em;color:var(--soft)}.talk .last{font-weight:600}\n"
    ".pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,17rem),1fr));gap:.6rem}\n"
    ".reply{border:1px solid var(--line);border-radius:.5rem;padding:.5rem .8rem;font-size:1.1rem}.reply b{color:var(--soft);font-size:.85rem;display:block}\n"
    "fieldset{border:0;padding:0;margin:.9rem 0 0}legend{padding:0;font-weight:600}legend span{display:block;font-weight:400;color:var(--soft);font-size:.9rem}\n"
    ".row{display:flex;gap:.5rem;margin-top:.3rem}button{flex:1;min-height:2.9rem;font:inherit;color:var(--fg);background:var(--card);border:1px solid var(--line);border-radius:.5rem;cursor:pointer}\n"
    "button[aria-pressed=true]{background:var(--on);border-color:var(--on);color:var(--on-fg);font-weight:600}button:disabled{opacity:.4;cursor:default}\n"
    "button:focus-visible{outline:3px solid var(--on);outline-offset:1px}nav.row{margin-top:1.4rem}#done{font-weight:600}\n";

/* The page's one script: no libraries, no network.  Its texts come from the data. */
static const char script[] =
    "'use strict';\n"
    "const D=JSON.parse(document.getElementById('data').textContent),T=D.text,N=D.items.length,Q=D.questions.length;\n"
    "const store='duet-'+D.sheet,$=id=>document.getElementById(id);\n"
    "let A={},secs={},at=0,since=Date.now(),kept=true,saved=0;\n"
    "try{const o=JSON.parse(localStorage.getItem(store)||'{}');A=o.A||{};secs=o.secs||{};saved=o.saved||0}catch(e){kept=false}\n"
    "const full=i=>{const a=A[i]||[];if(!a[0])return false;if(D.ssa&&a[0]==='n')return true;for(let k=0;k<Q;k++)if(!a[k])return false;return true};\n"
    "const count=()=>{let n=0;for(let i=1;i<=N;i++)n+=full(i);return n};\n"
    "function keep(){try{localStorage.setItem(store,JSON.stringify({A,secs,saved}))}catch(e){kept=false}$('kept').textContent=kept?T.kept:T.lost}\n"
    "function el(tag,cls,text){const x=document.createElement(tag);if(cls)x.className=cls;if(text!==undefined)x.textContent=text;return x}\n"
    "function options(){return D.ssa?[['y',T.yes],['n',T.no]]:[['1',T.first],['tie',T.tie],['2',T.second]]}\n"
    "function answer(k,v){const i=at+1,a=A[i]||(A[i]=[]),was=full(i);a[k]=a[k]===v?undefined:v;if(D.ssa&&k===0&&v==='n')a[1]=undefined;\n"
    " if(!was&&full(i))secs[i]=Math.round((secs[i]||0)+(Date.now()-since)/100)/10;keep();draw()}\n"
    "function draw(){const it=D.items[at],a=A[at+1]||[];$('count').textContent=T.of.replace('%1',at+1).replace('%2',N)+' · '+T.answered.replace('%1',count());\n"
    " $('bar').max=N;$('bar').value=count();const talk=$('talk');talk.textContent='';\n"
    " it.turns.forEach((t,j)=>{const me=(it.turns.length-1-j)%2;const p=el('p',j===it.turns.length-1?'last':'');p.append(el('b','',me?'›':'‹'),el('span','',t));talk.append(p)});\n"
    " const pair=$('pair');pair.textContent='';it.replies.forEach((r,j)=>{const d=el('div','reply');if(!D.ssa)d.append(el('b','',j?T.second:T.first));d.append(el('span','',r));pair.append(d)});\n"
    " const q=$('questions');q.textContent='';D.questions.forEach((x,k)=>{const f=el('fieldset'),l=el('legend','',x[0]);l.append(el('span','',x[1]));const row=el('div','row');\n"
    "  const off=D.ssa&&k===1&&a[0]==='n';options().forEach(o=>{const b=el('button','',o[1]);b.type='button';b.dataset.q=k;b.dataset.v=o[0];b.disabled=off;b.setAttribute('aria-pressed',a[k]===o[0]);b.onclick=()=>answer(k,o[0]);row.append(b)});\n"
    "  f.append(l,row);q.append(f)});$('back').disabled=at===0;$('next').disabled=at===N-1;$('done').textContent=count()===N?T.all:''}\n"
    "function go(i){if(i<0||i>=N)return;at=i;since=Date.now();draw();scrollTo(0,0)}\n"
    "function rows(){const r=[];for(let i=1;i<=N;i++)if(full(i))r.push(i);return r}\n"
    "function out(name,type,text){const a=el('a');a.href=URL.createObjectURL(new Blob([text],{type}));a.download=name;document.body.append(a);a.click();a.remove();saved=count();keep()}\n"
    "const cell=s=>/[\",\\r\\n]/.test(s)?'\"'+s.replace(/\"/g,'\"\"')+'\"':s;\n"
    "const json=()=>JSON.stringify({sheet:D.sheet,judge:D.judge,answers:rows().map(i=>({item:i,answers:D.questions.map((_,k)=>(A[i][k]||'')),seconds:secs[i]}))});\n"
    "const csv=()=>[['sheet','judge','item',...D.keys].join(',')].concat(rows().map(i=>[D.sheet,cell(D.judge),i,...D.questions.map((_,k)=>A[i][k]||'')].join(','))).join('\\r\\n')+'\\r\\n';\n"
    "$('back').onclick=()=>go(at-1);$('next').onclick=()=>go(at+1);\n"
    "$('open').onclick=()=>{for(let k=1;k<=N;k++){const i=(at+k)%N;if(!full(i+1)){go(i);return}}};\n"
    "$('csv').onclick=()=>out('duet-answers.csv','text/csv',csv());$('json').onclick=()=>out('duet-answers.json','application/json',json());\n"
    "addEventListener('keydown',e=>{if(e.ctrlKey||e.metaKey||e.altKey)return;if(e.key==='ArrowLeft')go(at-1);else if(e.key==='ArrowRight'||(e.key==='Enter'&&e.target===document.body))go(at+1);else{\n"
    " const v=D.ssa?{y:'y',n:'n','1':'y','0':'n'}[e.key]:{'1':'1','2':'2','=':'tie','0':'tie','3':'tie'}[e.key];if(!v)return;const a=A[at+1]||[];\n"
    " for(let k=0;k<Q;k++)if(!a[k]&&!(D.ssa&&k&&a[0]==='n')){answer(k,v);return}}});\n"
    "addEventListener('beforeunload',e=>{if(!kept&&count()>saved){e.preventDefault();e.returnValue=''}});\n"
    "let first=0;while(first<N-1&&full(first+1))first++;keep();go(first);\n";

typedef struct {
    const char *title, *note, *back, *next, *open, *csv, *json, *keys, *first, *second, *tie, *yes, *no, *of, *answered, *kept, *lost, *all;
} words;
static const words texts[2][2] = { /* [ssa][zh] */
    { { "Which reply is better?", "Read the talk, then compare the two replies to its last line. Every question has its own answer; a tie is an answer too. ‹ is the user, › the program.", "Back", "Next",
        "Next unanswered", "Save as CSV", "Save as JSON", "Keys: 1, 2, = answer the next open question; arrows turn the page. When you are done, or want to stop, save and send the file back.", "First",
        "Second", "Tie", "Yes", "No", "%1 of %2", "%1 answered", "Your answers are kept in this browser.", "This browser keeps nothing: save before you close the page.", "All answered: please save and send the file back." },
      { "哪一句回答更好？", "先读对话，再比较对最后一句的两个回答。每个问题分别作答，不分高下也是一种答案。‹ 是用户，› 是程序。", "上一题", "下一题", "下一道未答题", "存为 CSV", "存为 JSON",
        "按键：1、2、= 回答下一个未答的问题，左右箭头翻页。做完或想停下时，请保存文件并发回。", "第一句", "第二句", "不分高下", "是", "否", "第 %1 题，共 %2 题", "已答 %1 题", "答案保存在这个浏览器里。",
        "这个浏览器不保存答案：关闭页面前请先存盘。", "全部答完了，请保存文件并发回。" } },
    { { "Is this reply sensible?", "Read the talk, then judge the reply to its last line. ‹ is the user, › the program.", "Back", "Next", "Next unanswered", "Save as CSV", "Save as JSON",
        "Keys: y, n answer the next open question; arrows turn the page. When you are done, or want to stop, save and send the file back.", "First", "Second", "Tie", "Yes", "No", "%1 of %2", "%1 answered",
        "Your answers are kept in this browser.", "This browser keeps nothing: save before you close the page.", "All answered: please save and send the file back." },
      { "这句回答合理吗？", "先读对话，再判断对最后一句的回答。‹ 是用户，› 是程序。", "上一题", "下一题", "下一道未答题", "存为 CSV", "存为 JSON",
        "按键：y、n 回答下一个未答的问题，左右箭头翻页。做完或想停下时，请保存文件并发回。", "第一句", "第二句", "不分高下", "是", "否", "第 %1 题，共 %2 题", "已答 %1 题", "答案保存在这个浏览器里。",
        "这个浏览器不保存答案：关闭页面前请先存盘。", "全部答完了，请保存文件并发回。" } },
};

/* A text for the page's data: control characters made visible, as on every page. */
static json_t *js_shown(str s)
{
    buf v = { 0 };
    buf_visible(&v, s);
    json_t *j = v.oom ? NULL : js_text(buf_view(&v));
    buf_free(&v);
    return j;
}

static json_t *items_json(const study *s, const int *unit, const unsigned char *swapped)
{
    json_t *items = json_array();
    for (int i = 0; i < s->n; i++) {
        const study_unit *u     = &s->unit[unit[i]];
        const study_item *x     = &s->item[u->item];
        json_t           *turns = json_array(), *replies = json_array();
        for (int k = 0; k < x->n_turn; k++) json_array_append_new(turns, js_shown(x->turn[k]));
        json_array_append_new(replies, js_shown(u->reply[swapped[i]]));
        if (u->b >= 0) json_array_append_new(replies, js_shown(u->reply[!swapped[i]]));
        json_array_append_new(items, json_pack("{s:o, s:o}", "turns", turns, "replies", replies));
    }
    return items;
}

static json_t *data_json(const study *s, str judge, const int *unit, const unsigned char *swapped)
{
    int                   n_q;
    char                  sheet[65];
    const study_question *q = study_questions(s->kind, &n_q);
    const words          *w = &texts[s->kind == STUDY_SSA][s->lang];
    json_t               *questions = json_array(), *keys = json_array();
    study_sheet(s, judge, sheet);
    for (int k = 0; k < n_q; k++) {
        json_array_append_new(questions, json_pack("[s, s]", q[k].name[s->lang], q[k].ask[s->lang]));
        json_array_append_new(keys, json_string(q[k].key));
    }
    return json_pack("{s:s, s:o, s:b, s:o, s:o, s:o, s:{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}}", "sheet", sheet, "judge", js_text(judge), "ssa", s->kind == STUDY_SSA, "questions", questions, "keys",
                     keys, "items", items_json(s, unit, swapped), "text", "first", w->first, "second", w->second, "tie", w->tie, "yes", w->yes, "no", w->no, "of", w->of, "answered", w->answered, "kept",
                     w->kept, "lost", w->lost, "all", w->all);
}

/* JSON inside a script element: no '<' may stand there as it is. */
static void put_data(buf *out, const char *json)
{
    for (; *json; json++) {
        if (*json == '<') buf_str(out, STR("\\u003c"));
        else buf_chr(out, *json);
    }
}

static void put_page(const study *s, str judge, const char *data, buf *out)
{
    const words *w = &texts[s->kind == STUDY_SSA][s->lang];
    buf_fmt(out, "<!DOCTYPE html>\n<html lang=\"%s\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                 "<meta name=\"color-scheme\" content=\"light dark\">\n"
                 "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n<title>%s</title>\n<style>\n%s</style>\n</head>\n<body>\n<h1>%s</h1>\n",
            s->lang ? "zh" : "en", w->title, style, w->title);
    buf_fmt(out, "<details open><summary>%s</summary><p class=\"soft\">%s</p><p class=\"soft\">%s</p></details>\n", s->lang ? "说明" : "How to", w->note, w->keys);
    buf_str(out, STR("<p class=\"soft\"><span id=\"count\"></span> · "));
    page_text(out, judge);
    buf_fmt(out, "</p>\n<progress id=\"bar\"></progress>\n<div class=\"talk\" id=\"talk\"></div>\n<div class=\"pair\" id=\"pair\"></div>\n<div id=\"questions\"></div>\n"
                 "<nav class=\"row\"><button type=\"button\" id=\"back\">%s</button><button type=\"button\" id=\"next\">%s</button><button type=\"button\" id=\"open\">%s</button></nav>\n"
                 "<p id=\"done\" role=\"status\"></p>\n<div class=\"row\"><button type=\"button\" id=\"csv\">%s</button><button type=\"button\" id=\"json\">%s</button></div>\n<p class=\"soft\" id=\"kept\"></p>\n"
                 "<script type=\"application/json\" id=\"data\">",
            w->back, w->next, w->open, w->csv, w->json);
    put_data(out, data);
    buf_fmt(out, "</script>\n<script>\n%s</script>\n</body>\n</html>\n", script);
}

typedef struct {
    int           *unit;
    unsigned char *swapped;
} order;

static int order_new(order *o, const study *s, str judge, err *e)
{
    o->unit    = calloc((size_t)s->n + 1, sizeof *o->unit);
    o->swapped = calloc((size_t)s->n + 1, 1);
    return o->unit && o->swapped ? study_order(s, judge, o->unit, o->swapped, e) : no_memory(e);
}

static void order_free(order *o)
{
    free(o->unit);
    free(o->swapped);
}

int form_html(const study *s, str judge, buf *out, err *e)
{
    order   o;
    int     r    = order_new(&o, s, judge, e);
    json_t *data = r == OK ? data_json(s, judge, o.unit, o.swapped) : NULL;
    char   *text = data ? json_dumps(data, JSON_COMPACT) : NULL;
    if (r == OK && !text) r = no_memory(e);
    if (r == OK) put_page(s, judge, text, out);
    free(text);
    json_decref(data);
    order_free(&o);
    return r ? r : out->oom ? no_memory(e) : OK;
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

static void put_row(const study *s, str judge, const char *sheet, int number, int u, int swapped, int n_q, buf *out)
{
    const study_unit *x      = &s->unit[u];
    const study_item *item   = &s->item[x->item];
    buf               before = { 0 }, digits = { 0 };
    for (int k = 0; k + 1 < item->n_turn; k++) {
        if (k) buf_chr(&before, '\n');
        buf_str(&before, (item->n_turn - 1 - k) & 1 ? STR("> ") : STR("< "));
        buf_str(&before, item->turn[k]);
    }
    buf_fmt(&digits, "%d", number);
    csv_cell(out, str_of(sheet), 1);
    csv_cell(out, judge, 0);
    csv_cell(out, buf_view(&digits), 0);
    csv_cell(out, buf_view(&before), 0);
    csv_cell(out, item->turn[item->n_turn - 1], 0);
    csv_cell(out, x->reply[swapped], 0);
    if (x->b >= 0) csv_cell(out, x->reply[!swapped], 0);
    for (int k = 0; k < n_q; k++) csv_cell(out, STR(""), 0);
    csv_end(out);
    out->oom |= before.oom | digits.oom;
    buf_free(&before);
    buf_free(&digits);
}

int form_csv(const study *s, str judge, buf *out, err *e)
{
    static const char *const heads[2][7] = { { "sheet", "judge", "item", "before", "line", "reply 1", "reply 2" }, { "sheet", "judge", "item", "before", "line", "reply", NULL } };
    int                   n_q;
    const study_question *q = study_questions(s->kind, &n_q);
    char                  sheet[65];
    order                 o;
    int                   r = order_new(&o, s, judge, e);
    study_sheet(s, judge, sheet);
    for (int k = 0; k < 7 && heads[s->kind == STUDY_SSA][k]; k++) csv_cell(out, str_of(heads[s->kind == STUDY_SSA][k]), k == 0);
    for (int k = 0; k < n_q; k++) csv_cell(out, str_of(q[k].key), 0);
    csv_end(out);
    for (int i = 0; i < s->n && r == OK; i++) put_row(s, judge, sheet, i + 1, o.unit[i], o.swapped[i], n_q, out);
    order_free(&o);
    return r ? r : out->oom ? no_memory(e) : OK;
}
