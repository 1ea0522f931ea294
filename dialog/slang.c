/* slang: see slang.h. */
#include "dialog/slang.h"

#include <string.h>

/* Sorted by the first. */
static const struct {
    const char *said, *meant;
} WORD[] = {
    { "'em", "them" }, { "2", "to" }, { "2day", "today" }, { "2moro", "tomorrow" }, { "2morrow", "tomorrow" }, { "2night", "tonight" },
    { "2nite", "tonight" }, { "4", "for" }, { "acc", "account" }, { "acct", "account" }, { "addictd", "addicted" },
    { "adicted", "addicted" }, { "aint", "am not" }, { "alcahol", "alcohol" }, { "alchohol", "alcohol" }, { "alcoholc", "alcoholic" },
    { "amblance", "ambulance" }, { "ambulence", "ambulance" }, { "any1", "anyone" }, { "anyi", "anyone" }, { "anyl", "anyone" },
    { "arent", "aren't" }, { "arsehole", "asshole" }, { "ashole", "asshole" }, { "assh0le", "asshole" }, { "asswhole", "asshole" },
    { "azz", "ass" }, { "b4", "before" }, { "bcuz", "because" }, { "bday", "birthday" }, { "beatin", "beating" }, { "beatz", "beats" },
    { "becuz", "because" }, { "beotch", "bitch" }, { "bewbs", "boobs" }, { "bf", "boyfriend" }, { "bf's", "boyfriend's" },
    { "bfs", "boyfriend's" }, { "biatch", "bitch" }, { "biotch", "bitch" }, { "bitcoins", "bitcoin" }, { "blackpeople", "black people" },
    { "bleedin", "bleeding" }, { "bmb", "bomb" }, { "booba", "boobs" }, { "bosss", "boss's" }, { "boyz", "boys" },
    { "breathin", "breathing" }, { "btch", "bitch" }, { "burnin", "burning" }, { "buyin", "buying" }, { "cancr", "cancer" },
    { "cant", "can't" }, { "chokin", "choking" }, { "ciggies", "cigarettes" }, { "ciggy", "cigarette" }, { "cigs", "cigarettes" },
    { "cke", "coke" }, { "cnt", "can't" }, { "cocane", "cocaine" }, { "cookin", "cooking" }, { "couldnt", "couldn't" },
    { "coz", "because" }, { "crck", "crack" }, { "cryin", "crying" }, { "cud", "could" }, { "cudnt", "couldn't" }, { "cunty", "cunt" },
    { "cuttin", "cutting" }, { "cuz", "because" }, { "dat", "that" }, { "dck", "dick" }, { "devorce", "divorce" }, { "didnt", "didn't" },
    { "dis", "this" }, { "divorse", "divorce" }, { "dnt", "don't" }, { "docter", "doctor" }, { "doesnt", "doesn't" }, { "doin", "doing" },
    { "dont", "don't" }, { "drgs", "drugs" }, { "drinkin", "drinking" }, { "drty", "dirty" }, { "druggs", "drugs" },
    { "dunno", "don't know" }, { "dyin", "dying" }, { "effing", "fucking" }, { "every1", "everyone" }, { "everyi", "everyone" },
    { "everyl", "everyone" }, { "evry", "every" }, { "evryone", "everyone" }, { "exs", "ex's" }, { "fck", "fuck" },
    { "fcking", "fucking" }, { "fkin", "fucking" }, { "fkn", "fucking" }, { "fuc", "fuck" }, { "fucc", "fuck" }, { "fuccing", "fucking" },
    { "fuckin", "fucking" }, { "fuckyou", "fuck you" }, { "fugging", "fucking" }, { "fuk", "fuck" }, { "fukin", "fucking" },
    { "fukn", "fucking" }, { "fuq", "fuck" }, { "fusk", "fuck" }, { "fuvk", "fuck" }, { "fuxk", "fuck" }, { "fuxking", "fucking" },
    { "gamblin", "gambling" }, { "gf", "girlfriend" }, { "gf's", "girlfriend's" }, { "gfs", "girlfriend's" }, { "gimme", "give me" },
    { "girlz", "girls" }, { "gn", "gun" }, { "goin", "going" }, { "gonna", "going to" }, { "gotta", "got to" }, { "gr8", "great" },
    { "grl", "girl" }, { "grls", "girls" }, { "growin", "growing" }, { "gunz", "guns" }, { "gurl", "girl" }, { "gurls", "girls" },
    { "gurlz", "girls" }, { "h8", "hate" }, { "hackin", "hacking" }, { "haf", "have" }, { "halp", "help" }, { "hasnt", "hasn't" },
    { "hateyou", "hate you" }, { "hav", "have" }, { "havent", "haven't" }, { "hawt", "hot" }, { "haxor", "hacker" }, { "haxx", "hack" },
    { "hck", "hack" }, { "helpp", "help" }, { "herion", "heroin" }, { "hes", "he's" }, { "hittin", "hitting" }, { "hitz", "hits" },
    { "hlp", "help" }, { "hows", "how's" }, { "hroin", "heroin" }, { "hubby", "husband" }, { "hurtin", "hurting" }, { "idjit", "idiot" },
    { "idoit", "idiot" }, { "idot", "idiot" }, { "ilegal", "illegal" }, { "illigal", "illegal" }, { "im", "i'm" },
    { "ima", "i'm going to" }, { "imma", "i'm going to" }, { "isnt", "isn't" }, { "itz", "it's" }, { "ive", "i've" },
    { "jailbate", "jailbait" }, { "kiddo", "kid" }, { "kidz", "kids" }, { "kil", "kill" }, { "kilin", "killing" },
    { "killher", "kill her" }, { "killhim", "kill him" }, { "killin", "killing" }, { "killme", "kill me" },
    { "killmyself", "kill myself" }, { "killyourself", "kill yourself" }, { "kinda", "kind of" }, { "kll", "kill" }, { "kno", "know" },
    { "l8r", "later" }, { "lawer", "lawyer" }, { "leagal", "legal" }, { "leagally", "legally" }, { "lemme", "let me" },
    { "livin", "living" }, { "lookin", "looking" }, { "lotsa", "lots of" }, { "luzer", "loser" }, { "m8", "mate" }, { "mah", "my" },
    { "makin", "making" }, { "medcine", "medicine" }, { "medicin", "medicine" }, { "moni", "money" }, { "morron", "moron" },
    { "mrder", "murder" }, { "mth", "meth" }, { "munny", "money" }, { "murdr", "murder" }, { "mysef", "myself" }, { "myslef", "myself" },
    { "n", "and" }, { "nakid", "naked" }, { "nde", "nude" }, { "ndes", "nudes" }, { "neked", "naked" }, { "nekkid", "naked" },
    { "nite", "night" }, { "noods", "nudes" }, { "noodz", "nudes" }, { "nudez", "nudes" }, { "outta", "out of" }, { "p0rn", "porn" },
    { "passwd", "password" }, { "passwrd", "password" }, { "pasword", "password" }, { "peeps", "people" }, { "phuck", "fuck" },
    { "pic", "picture" }, { "pics", "pictures" }, { "pipebomb", "pipe bomb" }, { "plis", "please" }, { "pls", "please" },
    { "plz", "please" }, { "ppl", "people" }, { "prn", "porn" }, { "pssy", "pussy" }, { "pw", "password" }, { "pwd", "password" },
    { "r", "are" }, { "rapd", "raped" }, { "realy", "really" }, { "retart", "retard" }, { "rlly", "really" }, { "rly", "really" },
    { "rn", "right now" }, { "rpe", "rape" }, { "rped", "raped" }, { "scm", "scam" }, { "seazure", "seizure" }, { "secks", "sex" },
    { "seggs", "sex" }, { "seks", "sex" }, { "seksy", "sexy" }, { "sellin", "selling" }, { "shes", "she's" }, { "shld", "should" },
    { "shoulda", "should have" }, { "shouldnt", "shouldn't" }, { "sht", "shit" }, { "shud", "should" }, { "shyt", "shit" },
    { "slt", "slut" }, { "smokin", "smoking" }, { "smth", "something" }, { "some1", "someone" }, { "somei", "someone" },
    { "somel", "someone" }, { "sorta", "sort of" }, { "srsly", "seriously" }, { "stalkin", "stalking" }, { "stel", "steal" },
    { "sth", "something" }, { "stonk", "stock" }, { "stonks", "stocks" }, { "stoopid", "stupid" }, { "stpid", "stupid" },
    { "str8", "straight" }, { "stupd", "stupid" }, { "suacide", "suicide" }, { "sucide", "suicide" }, { "suicde", "suicide" },
    { "suiside", "suicide" }, { "sum", "some" }, { "sum1", "someone" }, { "sumi", "someone" }, { "sumone", "someone" }, { "sx", "sex" },
    { "sxy", "sexy" }, { "tard", "retard" }, { "teh", "the" }, { "thats", "that's" }, { "theres", "there's" }, { "theyre", "they're" },
    { "thinkin", "thinking" }, { "tho", "though" }, { "throwin", "throwing" }, { "thru", "through" }, { "tht", "that" },
    { "tmr", "tomorrow" }, { "tmrw", "tomorrow" }, { "tomoz", "tomorrow" }, { "tonite", "tonight" }, { "touchin", "touching" },
    { "tryin", "trying" }, { "u", "you" }, { "unaliv", "unalive" }, { "unalived", "killed" }, { "unaliving", "killing" },
    { "unconcious", "unconscious" }, { "unconsious", "unconscious" }, { "undrage", "underage" }, { "ur", "your" }, { "vid", "video" },
    { "vids", "videos" }, { "w", "with" }, { "wanna", "want to" }, { "wanttodie", "want to die" }, { "wasnt", "wasn't" },
    { "wat", "what" }, { "wats", "what's" }, { "wd", "weed" }, { "weeed", "weed" }, { "wen", "when" }, { "weres", "where's" },
    { "whats", "what's" }, { "wher", "where" }, { "wheres", "where's" }, { "whos", "who's" }, { "whre", "whore" }, { "wifes", "wife's" },
    { "wifey", "wife" }, { "wit", "with" }, { "wiv", "with" }, { "wont", "won't" }, { "wot", "what" }, { "wouldnt", "wouldn't" },
    { "wpn", "weapon" }, { "wpns", "weapons" }, { "wud", "would" }, { "wut", "what" }, { "yo", "year old" }, { "youre", "you're" },
    { "yrs", "years" },
};

/* Words that are hidden behind pinyin, a syllable a character. */
static const struct {
    const char *han, *pinyin;
} HIDDEN[] = {
    { "自杀", "zi sha" }, { "轻生", "qing sheng" }, { "割腕", "ge wan" }, { "跳楼", "tiao lou" }, { "上吊", "shang diao" },
    { "遗书", "yi shu" }, { "自残", "zi can" }, { "自尽", "zi jin" }, { "解脱", "jie tuo" }, { "活着", "huo zhe" }, { "想死", "xiang si" },
    { "去死", "qu si" }, { "打死", "da si" }, { "弄死", "nong si" }, { "砍死", "kan si" }, { "捅死", "tong si" }, { "掐死", "qia si" },
    { "杀死", "sha si" }, { "毒死", "du si" }, { "杀人", "sha ren" }, { "砍人", "kan ren" }, { "捅人", "tong ren" }, { "打人", "da ren" },
    { "尸体", "shi ti" }, { "绑架", "bang jia" }, { "强奸", "qiang jian" }, { "性侵", "xing qin" }, { "家暴", "jia bao" },
    { "骚扰", "sao rao" }, { "猥亵", "wei xie" }, { "虐待", "nue dai" }, { "霸凌", "ba ling" }, { "威胁", "wei xie" }, { "跟踪", "gen zong" },
    { "侵犯", "qin fan" }, { "强暴", "qiang bao" }, { "毒品", "du pin" }, { "冰毒", "bing du" }, { "吸毒", "xi du" }, { "贩毒", "fan du" },
    { "戒毒", "jie du" }, { "大麻", "da ma" }, { "海洛因", "hai luo yin" }, { "白粉", "bai fen" }, { "摇头丸", "yao tou wan" },
    { "可卡因", "ke ka yin" }, { "罂粟", "ying su" }, { "鸦片", "ya pian" }, { "麻古", "ma gu" }, { "溜冰", "liu bing" }, { "毒瘾", "du yin" },
    { "戒烟", "jie yan" }, { "戒酒", "jie jiu" }, { "戒赌", "jie du" }, { "赌博", "du bo" }, { "赌瘾", "du yin" }, { "烟瘾", "yan yin" },
    { "酒瘾", "jiu yin" }, { "网瘾", "wang yin" }, { "上瘾", "shang yin" }, { "炸弹", "zha dan" }, { "炸药", "zha yao" },
    { "手枪", "shou qiang" }, { "枪支", "qiang zhi" }, { "步枪", "bu qiang" }, { "子弹", "zi dan" }, { "手雷", "shou lei" },
    { "雷管", "lei guan" }, { "火药", "huo yao" }, { "弹药", "dan yao" }, { "匕首", "bi shou" }, { "气枪", "qi qiang" },
    { "真枪", "zhen qiang" }, { "土枪", "tu qiang" }, { "猎枪", "lie qiang" }, { "爆炸", "bao zha" }, { "刀具", "dao ju" },
    { "病毒", "bing du" }, { "木马", "mu ma" }, { "黑客", "hei ke" }, { "盗号", "dao hao" }, { "密码", "mi ma" }, { "破解", "po jie" },
    { "入侵", "ru qin" }, { "攻击", "gong ji" }, { "账号", "zhang hao" }, { "漏洞", "lou dong" }, { "诈骗", "zha pian" },
    { "骗钱", "pian qian" }, { "骗子", "pian zi" }, { "骗人", "pian ren" }, { "骗保", "pian bao" }, { "骗局", "pian ju" },
    { "假证", "jia zheng" }, { "办证", "ban zheng" }, { "假币", "jia bi" }, { "假钞", "jia chao" }, { "假货", "jia huo" },
    { "发票", "fa piao" }, { "公章", "gong zhang" }, { "文凭", "wen ping" }, { "伪造", "wei zao" }, { "话术", "hua shu" },
    { "验证码", "yan zheng ma" }, { "客服", "ke fu" }, { "冒充", "mao chong" }, { "传销", "chuan xiao" }, { "洗钱", "xi qian" },
    { "抢劫", "qiang jie" }, { "偷窃", "tou qie" }, { "盗窃", "dao qie" }, { "走私", "zou si" }, { "逃税", "tao shui" }, { "偷税", "tou shui" },
    { "贿赂", "hui lu" }, { "行贿", "xing hui" }, { "敲诈", "qiao zha" }, { "勒索", "le suo" }, { "偷渡", "tou du" }, { "下毒", "xia du" },
    { "下药", "xia yao" }, { "放火", "fang huo" }, { "人肉", "ren rou" }, { "开盒", "kai he" }, { "偷拍", "tou pai" }, { "偷窥", "tou kui" },
    { "监听", "jian ting" }, { "监控", "jian kong" }, { "监视", "jian shi" }, { "定位", "ding wei" }, { "窃听", "qie ting" },
    { "隐私", "yin si" }, { "开房", "kai fang" }, { "记录", "ji lu" }, { "幼女", "you nv" }, { "幼童", "you tong" },
    { "未成年", "wei cheng nian" }, { "萝莉", "luo li" }, { "正太", "zheng tai" }, { "小学生", "xiao xue sheng" },
    { "初中生", "chu zhong sheng" }, { "儿童", "er tong" }, { "恋童", "lian tong" }, { "女孩", "nv hai" }, { "色情", "se qing" },
    { "黄片", "huang pian" }, { "黄色", "huang se" }, { "做爱", "zuo ai" }, { "约炮", "yue pao" }, { "裸照", "luo zhao" },
    { "裸聊", "luo liao" }, { "自慰", "zi wei" }, { "性爱", "xing ai" }, { "鸡巴", "ji ba" }, { "奶子", "nai zi" }, { "口交", "kou jiao" },
    { "高潮", "gao chao" }, { "上床", "shang chuang" }, { "成人", "cheng ren" }, { "淫荡", "yin dang" }, { "勾引", "gou yin" },
    { "黑人", "hei ren" }, { "黑鬼", "hei gui" }, { "同性恋", "tong xing lian" }, { "犹太", "you tai" }, { "垃圾", "la ji" },
    { "畜生", "chu sheng" }, { "贱人", "jian ren" }, { "废物", "fei wu" }, { "智障", "zhi zhang" }, { "脑残", "nao can" }, { "傻逼", "sha bi" },
    { "煞笔", "sha bi" }, { "白痴", "bai chi" }, { "混蛋", "hun dan" }, { "王八", "wang ba" }, { "狗屎", "gou shi" }, { "卧槽", "wo cao" },
    { "我操", "wo cao" }, { "我靠", "wo kao" }, { "妈的", "ma de" }, { "你妈", "ni ma" }, { "他妈", "ta ma" }, { "着火", "zhao huo" },
    { "起火", "qi huo" }, { "救命", "jiu ming" }, { "昏倒", "hun dao" }, { "晕倒", "yun dao" }, { "中风", "zhong feng" },
    { "心脏", "xin zang" }, { "流血", "liu xue" }, { "抽搐", "chou chu" }, { "呼吸", "hu xi" }, { "煤气", "mei qi" }, { "中毒", "zhong du" },
    { "溺水", "ni shui" }, { "发烧", "fa shao" }, { "感冒", "gan mao" }, { "头痛", "tou tong" }, { "头疼", "tou teng" }, { "咳嗽", "ke sou" },
    { "怀孕", "huai yun" }, { "抑郁", "yi yu" }, { "癌症", "ai zheng" }, { "吃药", "chi yao" }, { "血压", "xue ya" },
    { "布洛芬", "bu luo fen" }, { "头孢", "tou bao" }, { "肚子", "du zi" }, { "离婚", "li hun" }, { "起诉", "qi su" }, { "官司", "guan si" },
    { "律师", "lv shi" }, { "法院", "fa yuan" }, { "违法", "wei fa" }, { "合同", "he tong" }, { "仲裁", "zhong cai" }, { "赔偿", "pei chang" },
    { "犯法", "fan fa" }, { "判刑", "pan xing" }, { "财产", "cai chan" }, { "股票", "gu piao" }, { "基金", "ji jin" }, { "炒股", "chao gu" },
    { "比特币", "bi te bi" }, { "理财", "li cai" }, { "投资", "tou zi" }, { "贷款", "dai kuan" }, { "黄金", "huang jin" }, { "期货", "qi huo" },
    { "抄底", "chao di" },
};

/* Single syllables: beside a Han character they are nearly always the disguise of one of these.  Sorted. */
static const struct {
    const char *pinyin, *han;
} SYLLABLE[] = {
    { "bang", "绑" }, { "bing", "冰" }, { "cao", "操" }, { "da", "打" }, { "dao", "盗" }, { "du", "毒" }, { "fa", "发" }, { "gao", "告" },
    { "hei", "黑" }, { "huo", "活" }, { "jia", "假" }, { "jian", "奸" }, { "jiu", "酒" }, { "kai", "开" }, { "kan", "砍" },
    { "luo", "裸" }, { "nai", "奶" }, { "nong", "弄" }, { "pao", "炮" }, { "pian", "骗" }, { "po", "破" }, { "qiang", "抢" },
    { "qu", "去" }, { "sao", "骚" }, { "sha", "杀" }, { "si", "死" }, { "tong", "捅" }, { "tou", "偷" }, { "xi", "洗" }, { "yan", "烟" },
    { "yao", "药" }, { "zha", "炸" }, { "zou", "揍" }, { "zuo", "做" },
};

enum { HAN = 3, SYLLABLES = 3 }; /* bytes of a common Han character; syllables of the longest hidden word */

static int order(str a, const char *b)
{
    size_t n = strlen(b), k = a.n < n ? a.n : n;
    int    c = memcmp(a.s, b, k);
    return c ? c : (a.n > n) - (a.n < n);
}

static str none(void) { return (str){ NULL, 0 }; }
static str text(const char *s) { return (str){ s, strlen(s) }; }

str slang_word(str word)
{
    size_t lo = 0, hi = sizeof WORD / sizeof WORD[0];
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int    c   = order(word, WORD[mid].said);
        if (c == 0) return text(WORD[mid].meant);
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    return none();
}

static uint32_t han_at(const char *han, int k)
{
    uint32_t cp;
    utf8_next(han + HAN * k, HAN, &cp);
    return cp;
}

/* The syllables of a hidden word as views; returns how many. */
static int split(const char *pinyin, str *part)
{
    int n = 0;
    for (const char *s = pinyin; *s && n < SYLLABLES;) {
        size_t k  = strcspn(s, " ");
        part[n++] = (str){ s, k };
        s += k + (s[k] == ' ');
    }
    return n;
}

/* The run spells syllables [a, b) in full, or stands for one of them by its first letter. */
static int spells(str run, const str *part, int a, int b)
{
    size_t at = 0;
    if (run.n == 1 && b - a == 1) return part[a].s[0] == run.s[0];
    for (int i = a; i < b; i++) {
        if (run.n - at < part[i].n || memcmp(run.s + at, part[i].s, part[i].n) != 0) return 0;
        at += part[i].n;
    }
    return at == run.n;
}

/* "打4他": 4 sounds like 死; before a counted thing it is a number. */
static int is_dead(str run, uint32_t right)
{
    static const char after[] = "吧了你他她它那这算啊";
    if (run.n != 1 || run.s[0] != '4') return 0;
    for (int k = 0; right && k < (int)(sizeof after - 1) / HAN; k++)
        if (han_at(after, k) == right) return 1;
    return right == 0;
}

str slang_pinyin(str run, uint32_t left, uint32_t right)
{
    if (is_dead(run, right)) run = text("si");
    str  part[SYLLABLES], whole = none();
    char first = run.n ? run.s[0] : 0;
    for (size_t i = 0; i < sizeof HIDDEN / sizeof HIDDEN[0]; i++) {
        const char *han = HIDDEN[i].han;
        int         n   = split(HIDDEN[i].pinyin, part);
        for (int a = 0; a < n; a++) {
            if (part[a].s[0] != first) continue;
            for (int b = a + 1; b <= n; b++) {
                if (a == 0 && b == n) {
                    if (!whole.n && run.n > 3 && spells(run, part, a, b)) whole = text(han);
                    continue;
                }
                if ((a > 0 && han_at(han, a - 1) != left) || (b < n && han_at(han, b) != right)) continue;
                if (spells(run, part, a, b)) return (str){ han + HAN * a, (size_t)(HAN * (b - a)) };
            }
        }
    }
    if (whole.n) return whole;
    for (size_t i = 0; i < sizeof SYLLABLE / sizeof SYLLABLE[0]; i++)
        if (order(run, SYLLABLE[i].pinyin) == 0) return text(SYLLABLE[i].han);
    return none();
}
