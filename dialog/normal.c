/* normal: see normal.h.  The plain form walks the original once; ASCII and common Han characters, nearly all of a chat, never reach
 * utf8proc.  The bare form works on the plain form's characters in passes: what each character stands for, which
 * characters are only separators, runs shortened; then words are read by slang.h on the way out. */
#include "dialog/normal.h"

#include "dialog/slang.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Traditional character, simplified character, three bytes each, sorted by the first.  Not a full conversion: the characters that
 * occur in rules and in what people write around them. */
static const char SIMPLIFIED[] =
    "並并乾干亂乱佔占併并來来俠侠倉仓個个們们倫伦偽伪備备傳传債债傷伤僞伪價价億亿儘尽優优儲储兇凶兒儿內内兩两冊册凍冻"
    "別别刪删則则剛刚剝剥創创劃划劇剧劍剑劑剂動动務务勝胜勞劳勢势勵励勸劝勻匀區区協协卻却厭厌參参叢丛吳吴員员問问啓启"
    "啞哑啟启喚唤喪丧喫吃喬乔單单嗎吗嘆叹嘔呕嘗尝噁恶嚇吓嚐尝嚴严囑嘱國国圍围園园圓圆圖图團团執执堅坚報报場场塊块塗涂"
    "塵尘墊垫墜坠墳坟壓压壞坏壯壮夠够夢梦夾夹奧奥奪夺妝妆妳你姊姐姦奸姪侄婦妇媽妈嫵妩嬌娇嬤嬷嬰婴嬸婶孃娘孫孙學学孿孪"
    "寢寝實实寫写寬宽寵宠寶宝將将專专尋寻對对導导尷尴屆届屍尸層层屬属島岛師师帳账帶带幣币幫帮幹干幾几庫库廠厂廢废廣广"
    "廳厅弔吊張张強强彈弹彎弯彙汇後后徑径從从復复徹彻恥耻悶闷惡恶愛爱慘惨慮虑慶庆慾欲憂忧憑凭憤愤應应懲惩懶懒懷怀懼惧"
    "戀恋戰战戲戏拋抛挾挟捨舍掃扫揚扬換换損损搖摇搶抢摟搂撓挠撫抚撲扑擁拥擄掳擇择擊击擔担據据擠挤擰拧擺摆擼撸擾扰攔拦攜携"
    "攝摄攬揽斷断時时暈晕暫暂曆历曬晒書书會会東东條条業业極极構构槍枪樂乐樓楼樣样橋桥機机檢检欄栏權权歎叹歐欧歡欢歲岁"
    "歷历殘残殲歼殺杀殼壳毀毁毆殴氣气氫氢決决沒没洩泄淚泪湯汤溝沟滅灭滾滚滿满漁渔漢汉漲涨潔洁潛潜濕湿濟济濺溅瀉泻灘滩"
    "灣湾災灾為为無无煙烟熱热燈灯燒烧燬毁爐炉爛烂爭争爲为爺爷牆墙牽牵狀状猶犹獄狱獎奖獨独獲获獸兽獻献現现產产畝亩畢毕"
    "畫画異异當当痺痹瘋疯瘡疮療疗癡痴癢痒癮瘾發发盜盗盡尽監监盤盘眾众睏困瞞瞒硃朱確确碼码礎础礙碍祇只祕秘禍祸禮礼種种"
    "稱称積积穩稳窮穷竄窜竅窍竊窃競竞筆笔節节範范築筑簡简簽签籤签粵粤糧粮約约紅红紋纹純纯紙纸級级細细終终組组結结絕绝"
    "給给統统絲丝綁绑經经維维網网緊紧線线緝缉練练縊缢縛缚縱纵總总織织繩绳續续纔才罈坛罰罚罵骂羅罗習习聖圣聞闻聯联聰聪"
    "聲声職职聽听肅肃脅胁脫脱腦脑腫肿腸肠膚肤膠胶膽胆臉脸臟脏臺台與与舉举舊旧艙舱艷艳莖茎蔥葱蕩荡薦荐藍蓝藝艺藥药蘇苏"
    "蘭兰蘿萝處处虛虚號号蟲虫蠟蜡衆众術术衛卫衝冲裏里補补裝装裡里製制複复褲裤襪袜見见規规視视親亲覺觉觀观訂订計计訊讯"
    "訓训託托記记設设許许訴诉診诊詐诈評评詞词試试話话該该詳详誇夸認认誕诞誘诱語语誠诚誤误說说誰谁課课調调談谈請请論论"
    "諾诺謀谋謊谎講讲謝谢謠谣證证譏讥識识譜谱譯译議议譴谴護护讀读變变讎仇讓让讚赞豐丰豔艳豬猪財财貧贫貨货販贩貪贪責责"
    "貴贵買买貸贷費费賂赂賄贿資资賊贼賞赏賠赔賣卖賤贱質质賬账賭赌賴赖賺赚購购賽赛贈赠贏赢贓赃躍跃車车軍军軟软較较輕轻"
    "輛辆輪轮輸输轉转辦办辭辞農农這这連连進进遊游運运過过達达違违遞递遠远適适遲迟選选遺遗還还邊边鄉乡醜丑醫医釋释釘钉"
    "針针鈉钠鈔钞鉀钾銀银銨铵銷销鋒锋鋼钢錄录錢钱鍵键鎖锁鏈链鏡镜鐘钟鐵铁鑰钥門门閉闭開开閒闲間间閹阉闆板闖闯關关陰阴"
    "陳陈陸陆陽阳隨随險险隱隐隻只雖虽雙双雛雏雜杂雞鸡離离難难電电霧雾靈灵靜静頁页頂顶順顺預预領领頭头頸颈頹颓題题額额"
    "顏颜願愿類类顧顾風风飛飞飢饥飯饭飲饮養养餓饿館馆饑饥饒饶馬马駕驾駭骇騎骑騙骗騷骚騸骟驅驱驗验驚惊骯肮髒脏體体髮发"
    "鬆松鬍胡鬥斗鬧闹鬪斗鬭斗鬱郁魚鱼鮮鲜鳥鸟鴨鸭鷄鸡鹼碱麗丽麥麦麼么麽么黃黄點点黨党齊齐齒齿龍龙龜龟";

/* Letters that look like Latin ones after NFKC and case folding, sorted.  Greek, Latin extensions, Cyrillic, Armenian. */
static const struct {
    uint32_t from;
    char     to;
} LOOKALIKE[] = {
    { 0x00F8, 'o' }, { 0x0111, 'd' }, { 0x0127, 'h' }, { 0x0131, 'i' }, { 0x0142, 'l' }, { 0x0167, 't' }, { 0x0192, 'f' }, { 0x0237, 'j' },
    { 0x0250, 'a' }, { 0x0251, 'a' }, { 0x0253, 'b' }, { 0x0257, 'd' }, { 0x0261, 'g' }, { 0x0262, 'g' }, { 0x0269, 'i' }, { 0x026A, 'i' },
    { 0x026F, 'w' }, { 0x0274, 'n' }, { 0x0280, 'r' }, { 0x028C, 'a' }, { 0x028F, 'y' }, { 0x0299, 'b' }, { 0x029C, 'h' }, { 0x029F, 'l' },
    { 0x03B1, 'a' }, { 0x03B2, 'b' }, { 0x03B3, 'y' }, { 0x03B5, 'e' }, { 0x03B7, 'n' }, { 0x03B9, 'i' }, { 0x03BA, 'k' }, { 0x03BD, 'v' },
    { 0x03BF, 'o' }, { 0x03C1, 'p' }, { 0x03C4, 't' }, { 0x03C5, 'u' }, { 0x03C7, 'x' }, { 0x03C9, 'w' }, { 0x03F2, 'c' }, { 0x03F3, 'j' },
    { 0x0430, 'a' }, { 0x0431, '6' }, { 0x0432, 'b' }, { 0x0433, 'r' }, { 0x0435, 'e' }, { 0x0437, '3' }, { 0x043A, 'k' }, { 0x043C, 'm' },
    { 0x043D, 'h' }, { 0x043E, 'o' }, { 0x043F, 'n' }, { 0x0440, 'p' }, { 0x0441, 'c' }, { 0x0442, 't' }, { 0x0443, 'y' }, { 0x0445, 'x' },
    { 0x044C, 'b' }, { 0x0454, 'e' }, { 0x0455, 's' }, { 0x0456, 'i' }, { 0x0458, 'j' }, { 0x0475, 'v' }, { 0x04AF, 'y' }, { 0x04BB, 'h' },
    { 0x04CF, 'l' }, { 0x0501, 'd' }, { 0x051B, 'q' }, { 0x051D, 'w' }, { 0x0566, 'q' }, { 0x0570, 'h' }, { 0x0578, 'n' }, { 0x057D, 'u' },
    { 0x0585, 'o' }, { 0x1D00, 'a' }, { 0x1D04, 'c' }, { 0x1D05, 'd' }, { 0x1D07, 'e' }, { 0x1D0A, 'j' }, { 0x1D0B, 'k' }, { 0x1D0D, 'm' },
    { 0x1D0F, 'o' }, { 0x1D18, 'p' }, { 0x1D1B, 't' }, { 0x1D1C, 'u' }, { 0x1D20, 'v' }, { 0x1D21, 'w' }, { 0x1D22, 'z' }, { 0xA730, 'f' },
    { 0xA731, 's' }, { 0xA7AF, 'q' },
};

/* First code points of the decimal digits of scripts that NFKC leaves alone. */
static const uint32_t ZERO[] = { 0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66,
                                 0x0CE6, 0x0D66, 0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x17E0, 0x1810 };

int normal_is_han(uint32_t cp)
{
    return (cp >= 0x4E00 && cp <= 0x9FFF) || (cp >= 0x3400 && cp <= 0x4DBF) || cp == 0x3007 || (cp >= 0x20000 && cp <= 0x3FFFF);
}

void normal_free(normal *x)
{
    buf_free(&x->text);
    ivec_free(&x->from);
    ivec_free(&x->to);
}

static void reset(normal *x)
{
    buf_reset(&x->text);
    x->from.n = x->to.n = 0;
    x->from.oom = x->to.oom = 0;
}

/* The text gets some zeros behind its end: PCRE2's machine code reads whole vectors, and what it reads there should at least be defined. */
static int finish(normal *x, err *e)
{
    static const char zeros[32];
    buf_add(&x->text, zeros, sizeof zeros);
    if (!x->text.oom) x->text.n -= sizeof zeros;
    if (x->text.oom || x->from.oom || x->to.oom) return err_set(e, E_NOMEM, "out of memory normalising a text");
    return OK;
}

static void put(normal *x, uint32_t cp, size_t from, size_t to)
{
    char   s[4];
    int    f[4], t[4];
    size_t k = utf8_put(cp, s);
    for (size_t i = 0; i < k; i++) f[i] = (int)from, t[i] = (int)to;
    buf_add(&x->text, s, k);
    ivec_add(&x->from, f, k);
    ivec_add(&x->to, t, k);
}

/* Something that leaves no trace: it belongs to the character before it, so that a replaced span takes it along. */
static void swallow(normal *x, size_t to)
{
    if (x->to.n && !x->to.oom) x->to.v[x->to.n - 1] = (int)to;
}

static void put_space(normal *x, size_t from, size_t to)
{
    if (x->text.n && x->text.s[x->text.n - 1] == ' ') swallow(x, to);
    else put(x, ' ', from, to);
}

static uint32_t simplify(uint32_t cp)
{
    char key[4];
    if (cp < 0x4E00 || cp > 0x9FFF || utf8_put(cp, key) != 3) return cp;
    size_t lo = 0, hi = (sizeof SIMPLIFIED - 1) / 6;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int    c   = memcmp(key, SIMPLIFIED + 6 * mid, 3);
        if (c == 0) {
            uint32_t to;
            utf8_next(SIMPLIFIED + 6 * mid + 3, 3, &to);
            return to;
        }
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    return cp;
}

/* Overlays that any letter can carry; marks of one script (kana voicing, Indic vowels) are spelling and stay. */
static int is_overlay(uint32_t cp)
{
    return (cp >= 0x0300 && cp <= 0x036F) || (cp >= 0x1AB0 && cp <= 0x1AFF) || (cp >= 0x1DC0 && cp <= 0x1DFF) ||
           (cp >= 0x20D0 && cp <= 0x20FF) || (cp >= 0xFE20 && cp <= 0xFE2F) || (cp >= 0x0483 && cp <= 0x0489);
}

static uint32_t digit_of(uint32_t cp)
{
    if (cp < 0x0660 || cp > 0x1819) return cp;
    for (size_t i = 0; i < sizeof ZERO / sizeof ZERO[0]; i++)
        if (cp >= ZERO[i] && cp < ZERO[i] + 10) return '0' + (cp - ZERO[i]);
    return cp;
}

/* Apostrophes, quotation marks and dashes are typed in many shapes; patterns are written with the plain ones. */
static uint32_t plain_mark(uint32_t cp)
{
    switch (cp) {
    case 0x2018: case 0x2019: case 0x201A: case 0x201B: case 0x2032: case 0x02BC: case 0x02B9: case 0x00B4: case 0x2039: case 0x203A: case 0xA78C:
        return '\'';
    case 0x201C: case 0x201D: case 0x201E: case 0x201F: case 0x2033: case 0x00AB: case 0x00BB: return '"';
    case 0x2010: case 0x2011: case 0x2012: case 0x2013: case 0x2014: case 0x2015: case 0x2212: case 0x2043: case 0x2E3A: case 0x2E3B: return '-';
    default: return cp;
    }
}

/* The general case: one character with the marks of its own script behind it, decomposed, folded, stripped, composed.  cp[0..n) covers
 * original bytes [from, to). */
static void put_general(normal *x, const uint32_t *cp, int n, size_t from, size_t to)
{
    enum { ROOM = 96 }; /* the longest compatibility decomposition, U+FDFA, has 18 code points */
    utf8proc_int32_t d[ROOM];
    int              m = 0, last = 0;
    if (n == 1 && plain_mark(cp[0]) != cp[0]) { /* some would fall apart: U+00B4 is a space and a mark to NFKC */
        put(x, plain_mark(cp[0]), from, to);
        return;
    }
    for (int i = 0; i < n; i++) {
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)cp[i], d + m, ROOM - m,
                                                     UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE, &last);
        if (k < 0 || k > ROOM - m) break; /* cannot happen within these sizes; what is decomposed so far is kept */
        m += (int)k;
    }
    int kept = 0;
    for (int i = 0; i < m; i++)
        if (!is_overlay((uint32_t)d[i])) d[kept++] = d[i];
    if (kept == 0) {
        swallow(x, to);
        return;
    }
    utf8proc_ssize_t c = utf8proc_normalize_utf32(d, kept, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    for (utf8proc_ssize_t i = 0; i < (c < 0 ? kept : c); i++) {
        uint32_t u = (uint32_t)d[i];
        switch (utf8proc_category(d[i])) {
        case UTF8PROC_CATEGORY_ZS:
        case UTF8PROC_CATEGORY_ZL:
        case UTF8PROC_CATEGORY_ZP:
        case UTF8PROC_CATEGORY_CC: put_space(x, from, to); break;
        case UTF8PROC_CATEGORY_ND: put(x, digit_of(u), from, to); break;
        default: put(x, simplify(u), from, to);
        }
    }
}

int normal_plain(normal *out, str text, err *e)
{
    enum { CLUSTER = 4 }; /* 4 * 18 code points fit put_general's room */
    reset(out);
    if (text.n > NORMAL_MAX) return err_set(e, E_LIMIT, "a text of %zu bytes: at most %d can be checked", text.n, NORMAL_MAX);
    for (size_t i = 0; i < text.n;) {
        unsigned char b = (unsigned char)text.s[i];
        if (b < 0x80) {
            if (b <= ' ' || b == 0x7F) put_space(out, i, i + 1);
            else put(out, b >= 'A' && b <= 'Z' ? b + 32u : b, i, i + 1);
            i++;
            continue;
        }
        uint32_t cp[CLUSTER];
        size_t   k = utf8_next(text.s + i, text.n - i, &cp[0]);
        if (cp[0] == UTF8_BAD) {
            put(out, 0xFFFD, i, i + k);
        } else if (cp[0] >= 0x4E00 && cp[0] <= 0x9FFF) {
            put(out, simplify(cp[0]), i, i + k);
        } else {
            int n = 1;
            while (n < CLUSTER && i + k < text.n && (unsigned char)text.s[i + k] >= 0xC0) {
                size_t step = utf8_next(text.s + i + k, text.n - i - k, &cp[n]);
                if (cp[n] == UTF8_BAD || is_overlay(cp[n]) || utf8proc_category((utf8proc_int32_t)cp[n]) != UTF8PROC_CATEGORY_MN) break;
                k += step;
                n++;
            }
            put_general(out, cp, n, i, i + k);
        }
        i += k;
    }
    return finish(out, e);
}

uint32_t normal_cp(uint32_t cp)
{
    normal   x = { 0 };
    char     s[4];
    uint32_t u  = 0;
    size_t   k  = utf8_put(cp, s);
    int      ok = k && normal_plain(&x, (str){ s, k }, NULL) == OK && x.text.n && utf8_next(x.text.s, x.text.n, &u) == x.text.n;
    normal_free(&x);
    return ok ? u : 0;
}

/* ---- the bare form ---------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t cp;   /* in the plain form */
    uint32_t is;   /* what it stands for */
    int      at, end; /* bytes of the plain form */
    int      wide;    /* bytes of the original */
    int      drop;
} letter;

static int is_low(uint32_t c) { return c >= 'a' && c <= 'z'; }
static int is_digit(uint32_t c) { return c >= '0' && c <= '9'; }

/* Part of a written word: a letter or number of any script; the rest separates. */
static int is_solid(uint32_t c)
{
    if (c < 0x80) return is_low(c) || is_digit(c);
    if (c >= 0x4E00 && c <= 0x9FFF) return 1;
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NO;
}

/* Never punctuation of a sentence: between two Han characters it can only be decoration. */
static int is_decoration(uint32_t c)
{
    if (c < 0x80) return c && strchr("*_/\\|+=#^`'@&%$", (int)c) != NULL;
    if (c == 0xB7 || c == 0x2022) return 1;
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k >= UTF8PROC_CATEGORY_SM && k <= UTF8PROC_CATEGORY_SO;
}
static int is_foreign(uint32_t c) { return (c >= 0x0370 && c <= 0x058F); } /* Greek, Cyrillic, Armenian: may spell real words */

static uint32_t lookalike(uint32_t cp)
{
    if (cp >= 0x1F1E6 && cp <= 0x1F1FF) return 'a' + (cp - 0x1F1E6); /* regional indicators */
    if (cp >= 0x1F150 && cp <= 0x1F169) return 'a' + (cp - 0x1F150); /* negative circled */
    if (cp >= 0x1F170 && cp <= 0x1F189) return 'a' + (cp - 0x1F170); /* negative squared */
    size_t lo = 0, hi = sizeof LOOKALIKE / sizeof LOOKALIKE[0];
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (LOOKALIKE[mid].from == cp) return (uint32_t)(unsigned char)LOOKALIKE[mid].to;
        if (LOOKALIKE[mid].from > cp) hi = mid;
        else lo = mid + 1;
    }
    return 0;
}

/* Signs and digits that stand for letters; i: which letter 1, ! and | are. */
static uint32_t leet(uint32_t c, uint32_t i)
{
    switch (c) {
    case '0': return 'o';
    case '1': case '!': case '|': return i;
    case '3': return 'e';
    case '4': case '@': return 'a';
    case '5': case '$': return 's';
    case '7': case '+': return 't';
    default: return 0;
    }
}

/* A foreign word is read as Latin only when every one of its letters has a double: "сосk" yes, a Russian sentence no. */
static void fold_lookalikes(letter *v, int n)
{
    for (int i = 0; i < n;) {
        if (v[i].cp < 0x80 || normal_is_han(v[i].cp)) {
            i++;
            continue;
        }
        int j = i, all = 1;
        while (j < n && (is_foreign(v[j].cp) || (v[j].cp >= 0x80 && lookalike(v[j].cp)) || is_low(v[j].cp))) {
            if (is_foreign(v[j].cp) && !lookalike(v[j].cp)) all = 0;
            j++;
        }
        for (int k = i; k < j; k++) {
            uint32_t l = v[k].cp >= 0x80 ? lookalike(v[k].cp) : 0;
            if (l && (all || !is_foreign(v[k].cp))) v[k].is = l;
        }
        i = j > i ? j : i + 1;
    }
}

static void fold_leet(letter *v, int n, uint32_t one)
{
    for (int i = 0; i < n;) {
        int j = i, letters = 0, signs = 0;
        while (j < n && (is_low(v[j].is) || is_digit(v[j].is) || leet(v[j].is, one))) {
            letters += is_low(v[j].is);
            signs += leet(v[j].is, one) != 0;
            j++;
        }
        for (int k = i; letters && signs && k < j; k++) {
            uint32_t c = v[k].is, l = leet(c, one);
            /* ! | + @ end words and sentences: only before a letter */
            if (l && (is_digit(c) || c == '$' || (k + 1 < j && is_low(v[k + 1].is)))) v[k].is = l;
        }
        i = j > i ? j : i + 1;
    }
}

/* The bytes of white space behind the first spelled letter; more than that between two others ends a word ("s e n d   m e"). */
static int gap_width(const letter *v, int i) { return v[i + 1].is == ' ' ? v[i + 1].wide : INT_MAX; }

/* "f.u.c.k": three or more single letters, one to three separators between neighbours; a lone leet digit counts as a letter.  An "a" or "i" before it
 * may be a word of its own ("a b.o.m.b"): with `words` it is left out. */
static void join_spelled(letter *v, int n, uint32_t one, int words)
{
    for (int i = 0; i < n;) {
        int last = -1, count = 0, letters = 0, k = i;
        while (k < n) {
            uint32_t c = v[k].is;
            int alone = (k == 0 || !is_solid(v[k - 1].is)) && (k + 1 >= n || !is_solid(v[k + 1].is));
            if (!alone || !(is_low(c) || (is_digit(c) && leet(c, one)))) break;
            count++;
            letters += is_low(c);
            last = k;
            int s = k + 1;
            while (s < n && s - k <= 3 && !is_solid(v[s].is)) s++;
            if (s >= n || s == k + 1 || !is_solid(v[s].is)) break;
            k = s;
        }
        if (count >= 3 && letters >= 2 && 2 * letters >= count) {
            k = i;
            if (words && count >= 4 && (v[i].is == 'a' || v[i].is == 'i'))
                for (k++; !is_solid(v[k].is);) k++;
            int wide = gap_width(v, i);
            for (; k <= last; k++) {
                if (!is_solid(v[k].is)) v[k].drop = v[k].is != ' ' || v[k].wide <= wide;
                else if (is_digit(v[k].is)) v[k].is = leet(v[k].is, one);
            }
        }
        i = last >= i ? last + 1 : i + 1;
    }
}

static int one_of(uint32_t c, const char *set) { return c && c < 0x80 && strchr(set, (int)c) != NULL; }

/* Separators inside a word or between Han characters.  `left` and `right` are the lengths of the solid runs beside them. */
static int is_filler(const letter *v, int from, int to, uint32_t l, uint32_t r, int left, int right)
{
    int light = 1, signs = 0;
    if (is_low(l) && is_low(r)) return to - from == 1 && one_of(v[from].is, "._*-~");
    if (!(normal_is_han(l) || normal_is_han(r)) || is_digit(l) || is_digit(r)) return 0;
    for (int k = from; k < to; k++) {
        int s = is_decoration(v[k].is);
        signs += s || v[k].is == ' ';
        light &= s || one_of(v[k].is, " .-~");
    }
    if (signs == to - from && !(signs == 1 && v[from].is == ' ')) return 1; /* a space alone may stand for a comma */
    return light ? left == 1 || right == 1 : left == 1 && right == 1;
}

static void join_words(letter *v, int n)
{
    int i = 0;
    while (i < n && !is_solid(v[i].is)) i++;
    int left = 0;
    while (i < n) {
        int start = i;
        while (i < n && is_solid(v[i].is)) i++;
        left = i - start;
        int sep = i;
        while (i < n && !is_solid(v[i].is)) i++;
        int same = 1;
        for (int k = sep + 1; k < i; k++) same &= v[k].is == v[sep].is;
        if (i >= n || (i - sep > 3 && !same)) continue;
        int right = 0;
        while (i + right < n && right < 2 && is_solid(v[i + right].is)) right++;
        if (is_filler(v, sep, i, v[sep - 1].is, v[i].is, left, right))
            for (int k = sep; k < i; k++) v[k].drop = 1;
    }
}

/* One word of `bare`, [a, b), as it is read: every byte of a reading covers the whole word. */
static void put_reading(normal *out, const normal *bare, int a, int b, str meant)
{
    if (!meant.n) {
        buf_add(&out->text, bare->text.s + a, (size_t)(b - a));
        ivec_add(&out->from, bare->from.v + a, (size_t)(b - a));
        ivec_add(&out->to, bare->to.v + a, (size_t)(b - a));
        return;
    }
    for (size_t i = 0; i < meant.n;) {
        uint32_t cp;
        i += utf8_next(meant.s + i, meant.n - i, &cp);
        put(out, cp, (size_t)bare->from.v[a], (size_t)bare->to.v[b - 1]);
    }
}

/* The Han character that ends at byte b, or begins there, a single blank aside; 0: none. */
static uint32_t han_before(str s, int b)
{
    uint32_t cp;
    if (b > 0 && s.s[b - 1] == ' ') b--;
    if (b < 3) return 0;
    return utf8_next(s.s + b - 3, 3, &cp) == 3 && normal_is_han(cp) ? cp : 0;
}

static uint32_t han_after(str s, int b)
{
    uint32_t cp;
    if (b < (int)s.n && s.s[b] == ' ') b++;
    if (b >= (int)s.n || (unsigned char)s.s[b] < 0x80) return 0;
    utf8_next(s.s + b, s.n - (size_t)b, &cp);
    return cp != UTF8_BAD && normal_is_han(cp) ? cp : 0;
}

static int is_word(unsigned char c) { return is_low(c) || is_digit(c) || c == '\''; }

/* Read the words of `bare` into `out`. */
static void read_words(normal *out, const normal *bare)
{
    str s = buf_view(&bare->text);
    for (int i = 0; i < (int)s.n;) {
        int j = i;
        while (j < (int)s.n && is_word((unsigned char)s.s[j]) == is_word((unsigned char)s.s[i])) j++;
        str word = { s.s + i, (size_t)(j - i) }, meant = { NULL, 0 };
        if (is_word((unsigned char)s.s[i])) {
            uint32_t left = han_before(s, i), right = han_after(s, j);
            if (left || right) meant = slang_pinyin(word, left, right);
            else if (word.n == 1 && word.s[0] == 'w' && j + 1 < (int)s.n && s.s[j] == '/') { /* w/ and w/o */
                int out_of = s.s[j + 1] == 'o' && (j + 2 == (int)s.n || !is_word((unsigned char)s.s[j + 2]));
                meant = out_of ? (str){ "without", 7 } : (str){ "with ", 5 };
                j += out_of ? 2 : 1;
            } else meant = slang_word(word);
        }
        put_reading(out, bare, i, j, meant);
        i = j;
    }
}

int normal_bare(normal *out, const normal *plain, int keep, err *e)
{
    normal bare = { 0 };
    reset(out);
    const char *s = plain->text.s;
    int         n = 0, len = (int)plain->text.n;
    if (len == 0) return OK;
    letter *v = calloc((size_t)len, sizeof *v);
    if (!v) return err_set(e, E_NOMEM, "out of memory normalising a text");
    for (int i = 0; i < len; n++) {
        size_t k = utf8_next(s + i, (size_t)(len - i), &v[n].cp);
        v[n].is  = v[n].cp;
        v[n].at  = i;
        v[n].end = i += (int)k;
        v[n].wide = plain->to.v[i - 1] - plain->from.v[v[n].at];
    }
    uint32_t one = keep == 1 ? 'i' : 'l', last = 0;
    fold_lookalikes(v, n);
    fold_leet(v, n, one);
    join_spelled(v, n, one, keep > 1);
    join_words(v, n);
    int run = 0;
    for (int i = 0; i < n; i++) {
        size_t from = (size_t)plain->from.v[v[i].at], to = (size_t)plain->to.v[v[i].end - 1];
        if (v[i].drop) continue;
        run  = v[i].is == last ? run + 1 : 1;
        last = v[i].is;
        int length = run;
        if (is_low(last) && run > keep) { /* shorten only runs of three and more: look ahead from the second on */
            int j = i + 1;
            while (j < n && (v[j].drop || v[j].is == last) && length < 3) length += !v[j].drop, j++;
            if (length >= 3) {
                swallow(&bare, to);
                continue;
            }
        }
        put(&bare, last, from, to);
    }
    free(v);
    if (bare.text.oom || bare.from.oom || bare.to.oom) out->text.oom = 1;
    else read_words(out, &bare);
    normal_free(&bare);
    return finish(out, e);
}
