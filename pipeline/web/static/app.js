// The page of the worker: asks /api/overview and /api/status again and again and shows what they say.
// Text from outside reaches the document as text only (textContent), never as markup.

const REFRESH_MS = 1_500;
const RETRY_MS = 3_000;
const MAX_RETRY_MS = 15_000;
const ANSWER_MS = 20_000;
const OLD_AFTER_MS = 60_000;
const HIGH_FAILURE_SHARE = 0.05;
const HIGH_FAILURES = 3; // one failure of two uses is no sign yet
const PERIODS = [15, 60, 1_440, 10_080];
const ZONE = "Asia/Baku";

const TEXTS = {
  en: {
    title: "Use of public e-services",
    skip: "Skip to the ranking",
    language: "Language",
    period: "Period",
    short15: "15 min",
    short60: "1 h",
    short1440: "24 h",
    short10080: "7 d",
    last15: "last 15 minutes",
    last60: "last hour",
    last1440: "last 24 hours",
    last10080: "last 7 days",
    asOf: "Data as of",
    stale: "Warning: the newest event is {age} old",
    freshness: "From event to answer: p50 {p50}, p99 {p99}",
    usesPerSecond: "Uses per second",
    usesPerSecondNote: "mean of the last two minutes",
    usesInPeriod: "Uses",
    peopleInPeriod: "Unique people",
    reporting: "Agencies reporting",
    silent: "Agencies that sent nothing in the period",
    heard: "last heard {time}",
    never: "never heard",
    catalogue: "Catalogue version {version}.",
    rejected: "Events rejected",
    duplicates: "Duplicates dropped",
    ofEvents: "{share} of {events} events since the beginning",
    sinceBeginning: "since the beginning",
    rank: "Rank",
    agency: "Agency",
    uses: "Uses",
    share: "Share of uses",
    change: "Change",
    changeShort: "Change",
    people: "People",
    trend: "Trend",
    latency: "Time to answer",
    failures: "Failed",
    caption: "Agencies by uses, {period}, {from} – {to}",
    up: "up {value}",
    down: "down {value}",
    unchanged: "unchanged",
    new: "new",
    noBefore: "no uses in the period before",
    places: "places: {value}",
    trendHeard: "highest: {most}, latest: {last}",
    high: "high",
    loading: "Loading …",
    empty: "No events yet; send some with:",
    nothing: "No uses in this period. Choose a longer one.",
    refused: "Events have arrived, but none was accepted; the dead letters say why.",
    worker: "The worker does not answer.",
    store: "ClickHouse is away:",
    refuses: "The worker refuses:",
    writing: "Results are not being written:",
    lastFigures: "The figures are the last ones received.",
    next: "Next attempt in {seconds} s.",
    asking: "Asking …",
    retry: "Try now",
    back: "The figures are up to date again.",
    fresh: "New events are arriving again.",
    shown: "{period}: {uses} uses, {agencies} agencies.",
    notes: "Notes",
    noteChange:
      "Change: uses against the period of the same length just before; the arrow beside the rank counts places. The current minute is still being counted.",
    notePeople: "People: estimated from pseudonyms, within about 1 %.",
    noteLatency: "p50, p95, p99: half, 95 % and 99 % of the uses were answered within this time, within 1 %.",
    noteFailures: "Failed: share of the agency's own uses; highlighted from 5 % and three failures.",
    noteTrend: "Trend: each line has its own scale, from zero; dashed where the minute is not over.",
    links: "More",
    metrics: "Metrics for Prometheus",
    json: "These figures as JSON",
    status: "State of the worker",
    ms: "ms",
    s: "s",
    min: "min",
    h: "h",
    d: "d",
  },
  az: {
    title: "Dövlət elektron xidmətlərindən istifadə",
    skip: "Sıralamaya keç",
    language: "Dil",
    period: "Dövr",
    short15: "15 dəq",
    short60: "1 saat",
    short1440: "24 saat",
    short10080: "7 gün",
    last15: "son 15 dəqiqə",
    last60: "son 1 saat",
    last1440: "son 24 saat",
    last10080: "son 7 gün",
    asOf: "Məlumatların vaxtı:",
    stale: "Xəbərdarlıq: ən yeni hadisədən {age} keçib",
    freshness: "Hadisədən cavaba qədər: p50 {p50}, p99 {p99}",
    usesPerSecond: "Saniyədə istifadə",
    usesPerSecondNote: "son iki dəqiqənin ortası",
    usesInPeriod: "İstifadə sayı",
    peopleInPeriod: "Fərqli şəxslər",
    reporting: "Məlumat verən qurumlar",
    silent: "Dövrdə heç nə göndərməyən qurumlar",
    heard: "son məlumat {time}",
    never: "heç vaxt məlumat verməyib",
    catalogue: "Kataloqun {version}-ci versiyası.",
    rejected: "Rədd edilmiş hadisələr",
    duplicates: "Atılmış təkrarlar",
    ofEvents: "başlanğıcdan bəri {events} hadisənin {share}-i",
    sinceBeginning: "başlanğıcdan bəri",
    rank: "Yer",
    agency: "Qurum",
    uses: "İstifadə",
    share: "İstifadədə pay",
    change: "Dəyişmə",
    changeShort: "Dəyişmə",
    people: "Şəxslər",
    trend: "Dinamika",
    latency: "Cavab müddəti",
    failures: "Uğursuz",
    caption: "Qurumlar istifadə sayına görə, {period}, {from} – {to}",
    up: "artıb: {value}",
    down: "azalıb: {value}",
    unchanged: "dəyişməyib",
    new: "yeni",
    noBefore: "əvvəlki dövrdə istifadə olmayıb",
    places: "yer: {value}",
    trendHeard: "ən çox: {most}, son: {last}",
    high: "yüksək",
    loading: "Yüklənir …",
    empty: "Hələ hadisə yoxdur; göndərmək üçün:",
    nothing: "Bu dövrdə istifadə olmayıb. Daha uzun dövr seçin.",
    refused: "Hadisələr gəlib, lakin heç biri qəbul edilməyib; səbəbi rədd edilmiş hadisələrdə göstərilib.",
    worker: "İşçi proses cavab vermir.",
    store: "ClickHouse əlçatan deyil:",
    refuses: "İşçi proses sorğunu rədd edir:",
    writing: "Nəticələr yazılmır:",
    lastFigures: "Son alınmış rəqəmlər göstərilir.",
    next: "Növbəti cəhd: {seconds} san sonra.",
    asking: "Sorğu göndərilir …",
    retry: "İndi yoxla",
    back: "Rəqəmlər yenidən yenilənir.",
    fresh: "Yeni hadisələr yenidən gəlir.",
    shown: "{period}: {uses} istifadə, {agencies} qurum.",
    notes: "Qeydlər",
    noteChange:
      "Dəyişmə: bilavasitə əvvəlki eyni uzunluqlu dövrlə müqayisədə istifadə sayı; yerin yanındakı ox yerlərin sayını göstərir. Cari dəqiqə hələ sayılır.",
    notePeople: "Şəxslər: psevdonimlər əsasında, təxminən 1 % dəqiqliklə qiymətləndirilib.",
    noteLatency: "p50, p95, p99: istifadələrin yarısı, 95 %-i və 99 %-i bu müddətdə cavablandırılıb (1 % dəqiqliklə).",
    noteFailures: "Uğursuz: qurumun öz istifadələrində pay; 5 %-dən və üç uğursuzluqdan etibarən seçilir.",
    noteTrend: "Dinamika: hər xəttin sıfırdan başlayan öz miqyası var; bitməmiş dəqiqə qırıq xətlə göstərilir.",
    links: "Əlavə",
    metrics: "Prometheus göstəriciləri",
    json: "Bu rəqəmlər JSON formatında",
    status: "İşçi prosesin vəziyyəti",
    ms: "ms",
    s: "san",
    min: "dəq",
    h: "saat",
    d: "gün",
  },
  ru: {
    title: "Использование государственных электронных услуг",
    skip: "Перейти к рейтингу",
    language: "Язык",
    period: "Период",
    short15: "15 мин",
    short60: "1 ч",
    short1440: "24 ч",
    short10080: "7 дн.",
    last15: "последние 15 минут",
    last60: "последний час",
    last1440: "последние 24 часа",
    last10080: "последние 7 дней",
    asOf: "Данные на",
    stale: "Внимание: последнее событие было {age} назад",
    freshness: "От события до ответа: p50 {p50}, p99 {p99}",
    usesPerSecond: "Использований в секунду",
    usesPerSecondNote: "среднее за последние две минуты",
    usesInPeriod: "Использований",
    peopleInPeriod: "Уникальных людей",
    reporting: "Ведомства с данными",
    silent: "Ведомства, ничего не приславшие за период",
    heard: "последние данные {time}",
    never: "данных не было",
    catalogue: "Версия каталога: {version}.",
    rejected: "Отклонено событий",
    duplicates: "Отброшено повторов",
    ofEvents: "{share} из {events} событий с начала учёта",
    sinceBeginning: "с начала учёта",
    rank: "Место",
    agency: "Ведомство",
    uses: "Использ.",
    share: "Доля",
    change: "Изменение",
    changeShort: "Измен.",
    people: "Люди",
    trend: "Тренд",
    latency: "Время ответа",
    failures: "Сбои",
    caption: "Ведомства по числу использований, {period}, {from} – {to}",
    up: "рост: {value}",
    down: "снижение: {value}",
    unchanged: "без изменений",
    new: "нов.",
    noBefore: "в предыдущем периоде использований не было",
    places: "мест: {value}",
    trendHeard: "наибольшее: {most}, последнее: {last}",
    high: "много",
    loading: "Загрузка …",
    empty: "Событий ещё нет; отправить можно так:",
    nothing: "В этом периоде использований не было. Выберите более длинный.",
    refused: "События поступили, но ни одно не принято; причины указаны в отклонённых событиях.",
    worker: "Рабочий процесс не отвечает.",
    store: "ClickHouse недоступен:",
    refuses: "Рабочий процесс отклоняет запрос:",
    writing: "Результаты не записываются:",
    lastFigures: "Показаны последние полученные данные.",
    next: "Следующая попытка через {seconds} с.",
    asking: "Запрос …",
    retry: "Повторить сейчас",
    back: "Данные снова обновляются.",
    fresh: "Новые события снова поступают.",
    shown: "{period}: использований {uses}, ведомств {agencies}.",
    notes: "Примечания",
    noteChange:
      "Изменение: число использований по сравнению с непосредственно предшествующим периодом той же длины; стрелка у места показывает число мест. Текущая минута ещё считается.",
    notePeople: "Люди: оценка по псевдонимам, с точностью около 1 %.",
    noteLatency: "p50, p95, p99: за это время получили ответ половина, 95 % и 99 % использований, с точностью 1 %.",
    noteFailures: "Сбои: доля собственных использований ведомства; выделяется начиная с 5 % и трёх сбоев.",
    noteTrend: "Тренд: у каждой линии своя шкала от нуля; незавершённая минута показана пунктиром.",
    links: "Ещё",
    metrics: "Метрики для Prometheus",
    json: "Эти данные в JSON",
    status: "Состояние рабочего процесса",
    ms: "мс",
    s: "с",
    min: "мин",
    h: "ч",
    d: "дн.",
  },
};

// Turkish writes numbers as Azerbaijani does; some browsers claim to know the latter and write English numbers.
const LOCALES = { en: "en-GB", az: "tr", ru: "ru" };

const $ = (id) => document.getElementById(id);

const state = {
  language: chosenLanguage(),
  minutes: chosenMinutes(),
  answer: null, // of /api/overview
  status: null, // of /api/status
  receivedAt: 0, // performance.now() of the answer
  failure: null, // {kind, reason}
  stale: false,
  announceNext: false, // the next answer follows a choice of the reader
};

// --- language, numbers, times ---------------------------------------------------------------------------------------

function chosenLanguage() {
  let stored = null;
  try {
    stored = localStorage.getItem("language");
  } catch {
    // Storage is switched off: the browser's languages decide.
  }
  const wanted = [stored, ...navigator.languages].map((tag) => tag?.slice(0, 2).toLowerCase());
  return wanted.find((tag) => Object.hasOwn(TEXTS, tag ?? "")) ?? "en";
}

function chosenMinutes() {
  const minutes = Number(new URLSearchParams(location.search).get("minutes"));
  return PERIODS.includes(minutes) ? minutes : 60;
}

function text(key, values = {}) {
  return TEXTS[state.language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

const formats = new Map();

function number(value, options = {}) {
  const key = state.language + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(LOCALES[state.language], options));
  return formats.get(key).format(value);
}

function percent(share, digits = 1) {
  const least = 10 ** -(digits + 2);
  const shown = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  const before = share > 0 && share < least / 2 ? "<" : "";
  // Percent signs by hand: the stand-in for Azerbaijani would put them first.
  const space = state.language === "ru" ? "\u00a0" : "";
  return `${before}${number((before ? least : share) * 100, shown)}${space}%`;
}

function quantity(value, unit, digits) {
  return `${number(value, { minimumFractionDigits: digits, maximumFractionDigits: digits })}\u00a0${text(unit)}`;
}

// Three digits at most: percentiles are right within 1 %.
function duration(ms) {
  if (ms < 999.5) return quantity(ms, "ms", ms > 0 && ms < 9.95 ? 1 : 0);
  if (ms < 59_950) return quantity(ms / 1_000, "s", ms < 9_995 ? 2 : 1);
  if (ms < 3_597_000) return quantity(ms / 60_000, "min", 1);
  return quantity(ms / 3_600_000, "h", 1);
}

function age(ms) {
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 120) return quantity(seconds, "s", 0);
  if (seconds < 7_200) return quantity(Math.floor(seconds / 60), "min", 0);
  if (seconds < 172_800) return quantity(Math.floor(seconds / 3_600), "h", 0);
  return quantity(Math.floor(seconds / 86_400), "d", 0);
}

function inBaku(moment, parts) {
  const options = { timeZone: ZONE, hourCycle: "h23", ...parts };
  return new Intl.DateTimeFormat("en-GB", options)
    .formatToParts(moment)
    .reduce((found, { type, value }) => ({ ...found, [type]: value }), {});
}

function clock(moment, seconds) {
  const { hour, minute, second } = inBaku(moment, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return seconds ? `${hour}:${minute}:${second}` : `${hour}:${minute}`;
}

function day(moment) {
  const { day: number, month, year } = inBaku(moment, { day: "2-digit", month: "2-digit", year: "numeric" });
  return `${number}.${month}.${year}`;
}

function offset(moment) {
  return inBaku(moment, { timeZoneName: "shortOffset" }).timeZoneName.replace("GMT", "UTC");
}

// --- the document ---------------------------------------------------------------------------------------------------

function put(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

function putAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

function make(tag, className, parent) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  parent?.append(node);
  return node;
}

function announce(words) {
  put($("announcer"), words);
}

function showTexts() {
  document.documentElement.lang = state.language;
  document.title = `xidmet – ${text("title")}`;
  $("language").value = state.language;
  for (const node of document.querySelectorAll("[data-text]")) put(node, text(node.dataset.text));
  for (const node of document.querySelectorAll("nav[data-label]")) putAttribute(node, "aria-label", text(node.dataset.label));
}

function showPeriod() {
  for (const input of document.querySelectorAll('input[name="minutes"]')) {
    input.checked = Number(input.value) === state.minutes;
  }
  putAttribute($("as-json"), "href", `/api/overview?minutes=${state.minutes}`);
}

function showFigures() {
  const { totals, period } = state.answer;
  for (const node of document.querySelectorAll("[data-period]")) put(node, text(`last${period.minutes}`));
  const rate = totals.uses_per_second;
  put($("uses-per-second"), number(rate, { maximumFractionDigits: rate < 10 ? 2 : rate < 100 ? 1 : 0 }));
  put($("uses"), number(totals.uses));
  put($("people"), number(totals.people));
  put($("reporting"), `${number(totals.agencies_reporting)} / ${number(totals.agencies_registered)}`);
  for (const name of ["rejected", "duplicates"]) {
    put($(name), number(totals[name]));
    const words = { share: percent(totals[name] / totals.events, 2), events: number(totals.events) };
    put($(`${name}-note`), totals.events ? text("ofEvents", words) : text("sinceBeginning"));
  }
}

// Which agencies nothing is heard of is for people to judge: some are used once a week.
function showSilent() {
  const { silent, catalogue } = state.answer;
  $("silent").hidden = silent.length === 0;
  const words = silent.map((item) => {
    const moment = item.last_minute ? new Date(item.last_minute) : null;
    const heard = moment ? text("heard", { time: `${day(moment)} ${clock(moment, false)}` }) : text("never");
    return `${item.name[state.language] ?? item.name.en} (${heard})`;
  });
  const list = $("silent-agencies");
  while (list.children.length > words.length) list.lastElementChild.remove();
  while (list.children.length < words.length) list.append(document.createElement("li"));
  words.forEach((line, place) => put(list.children[place], line));
  put($("catalogue"), `${text("catalogue", { version: catalogue.version })} ${catalogue.description}`);
}

function showTime() {
  if (!state.answer) return;
  const { data_as_of: asOf } = state.answer;
  const moment = asOf ? new Date(asOf) : null;
  const now = serverNow();
  if (moment) {
    const today = day(moment) === day(now);
    put($("as-of"), today ? clock(moment, true) : `${day(moment)} ${clock(moment, true)}`);
    putAttribute($("as-of"), "datetime", asOf);
    put($("zone"), `(${ZONE}, ${offset(moment)})`);
  } else {
    put($("as-of"), "–");
    put($("zone"), "");
  }
  const old = moment ? now - moment : 0;
  const stale = old > OLD_AFTER_MS;
  $("stale").hidden = !stale;
  if (stale) put($("stale"), text("stale", { age: age(old) }));
  if (stale !== state.stale) announce(stale ? $("stale").textContent : text("fresh"));
  state.stale = stale;
  const { freshness_p50_ms: p50, freshness_p99_ms: p99 } = state.status;
  put($("freshness"), p50 == null ? "" : text("freshness", { p50: duration(p50), p99: duration(p99) }));
}

// The server's clock, as this computer's may be wrong.
function serverNow() {
  return new Date(Date.parse(state.answer.generated_at) + performance.now() - state.receivedAt);
}

function showFailure() {
  const { failure } = state;
  const shown = failure ?? (state.status?.last_error ? { kind: "writing", reason: state.status.last_error } : null);
  $("banner").hidden = !shown;
  document.body.classList.toggle("old", Boolean(failure && state.answer));
  if (!shown) return;
  put($("banner-what"), text(shown.kind));
  put($("banner-reason"), [shown.reason, failure && state.answer ? text("lastFigures") : ""].filter(Boolean).join(" — "));
  $("retry").hidden = !failure;
  showCountdown();
}

function showCountdown() {
  let words = "";
  if (state.failure) {
    const seconds = Math.ceil((loop.due - performance.now()) / 1_000);
    words = loop.request || seconds <= 0 ? text("asking") : text("next", { seconds: number(seconds) });
  }
  put($("banner-next"), words);
}

function showEmpty() {
  const { answer } = state;
  const some = Boolean(answer?.agencies.length);
  $("ranking").hidden = !some;
  $("empty").hidden = some;
  if (some) return;
  let key = "loading";
  if (answer) key = answer.totals.accepted ? "nothing" : answer.totals.events ? "refused" : "empty";
  put($("empty-text"), text(key));
  putAttribute($("empty-text"), "data-state", key);
  $("empty-hint").hidden = key !== "empty";
}

// --- the ranking ----------------------------------------------------------------------------------------------------

const CELLS = ["uses", "share", "change", "people", "trend", "p50", "p95", "p99", "failed"];
const LABELS = { uses: "uses", share: "share", change: "changeShort", people: "people", trend: "trend", failed: "failures" };
const SVG = "http://www.w3.org/2000/svg";
const WIDE = 120;
const HIGH = 26;

const rows = new Map(); // agency code to the row's nodes

function makeRow(code) {
  const tr = make("tr");
  tr.setAttribute("role", "row");
  tr.dataset.agency = code;
  const row = { tr };
  row.rank = make("td", "rank", tr);
  row.rank.setAttribute("role", "cell");
  row.place = make("span", "place", row.rank);
  row.moved = makeArrow(row.rank, "moved");
  const th = make("th", "agency", tr);
  th.scope = "row";
  th.setAttribute("role", "rowheader");
  row.name = make("span", "name", th);
  put(make("span", "code", th), code);
  for (const name of CELLS) {
    row[name] = make("td", `${name} number`, tr);
    row[name].setAttribute("role", "cell");
  }
  row.share.classList.remove("number");
  row.trend.classList.remove("number");
  row.shareValue = make("span", "value", row.share);
  const track = make("span", "track", row.share);
  track.setAttribute("aria-hidden", "true");
  row.bar = make("i", "", track);
  row.changed = makeArrow(row.change, "");
  row.spark = document.createElementNS(SVG, "svg");
  row.spark.setAttribute("class", "spark");
  row.spark.setAttribute("viewBox", `0 0 ${WIDE} ${HIGH}`);
  row.spark.setAttribute("preserveAspectRatio", "none");
  row.spark.setAttribute("role", "img");
  for (const part of ["under", "line", "unfinished"]) {
    row[part] = document.createElementNS(SVG, "path");
    row[part].setAttribute("class", part);
    row.spark.append(row[part]);
  }
  row.trend.append(row.spark);
  row.failedValue = make("span", "", row.failed);
  row.failedHeard = make("span", "heard", row.failed);
  return row;
}

// An arrow to see and words to hear.
function makeArrow(parent, className) {
  const seen = make("span", className, parent);
  seen.setAttribute("aria-hidden", "true");
  return { seen, heard: make("span", "heard", parent), className };
}

function putArrow(arrow, direction, seen, heard) {
  const name = `${arrow.className} ${direction}`.trim();
  if (arrow.seen.className !== name) arrow.seen.className = name;
  put(arrow.seen, seen);
  put(arrow.heard, heard);
}

function fillRow(row, item, most, before) {
  put(row.place, number(item.rank));
  showMove(row.moved, item, before);
  put(row.name, item.name[state.language] ?? item.name.en ?? item.agency);
  put(row.uses, number(item.uses));
  put(row.shareValue, percent(item.share));
  row.bar.style.width = `${((item.share / most) * 100).toFixed(1)}%`;
  showChange(row.changed, item, before);
  put(row.people, number(item.people));
  showTrend(row, item.trend);
  for (const name of ["p50", "p95", "p99"]) put(row[name], duration(item[`${name}_ms`]));
  const high = item.failure_share >= HIGH_FAILURE_SHARE && Math.round(item.failure_share * item.uses) >= HIGH_FAILURES;
  put(row.failedValue, percent(item.failure_share));
  put(row.failedHeard, high ? ` ${text("high")}` : "");
  row.failed.classList.toggle("high", high);
  for (const name of CELLS) {
    putAttribute(row[name], "data-label", LABELS[name] ? text(LABELS[name]) : name);
  }
}

function showMove(arrow, item, before) {
  const places = item.previous_rank - item.rank;
  if (!item.previous_rank) {
    // Without a period before, everything would be new.
    putArrow(arrow, "still", before ? text("new") : "", before ? text("new") : "");
  } else if (places === 0) {
    putArrow(arrow, "still", "", text("unchanged"));
  } else {
    const value = text("places", { value: number(Math.abs(places)) });
    putArrow(arrow, places > 0 ? "up" : "down", `${places > 0 ? "▲" : "▼"}${number(Math.abs(places))}`, text(places > 0 ? "up" : "down", { value }));
  }
}

function showChange(arrow, item, before) {
  if (!item.previous_uses) {
    putArrow(arrow, "still", before ? text("new") : "–", text("noBefore"));
    return;
  }
  const change = item.uses / item.previous_uses - 1;
  const size = Math.abs(change);
  const value = change >= 9.995 ? `×${number(change + 1, { maximumFractionDigits: 0 })}` : percent(size, size < 0.9995 ? 1 : 0);
  if (change === 0) putArrow(arrow, "still", percent(0), text("unchanged"));
  else putArrow(arrow, change > 0 ? "up" : "down", `${change > 0 ? "▲" : "▼"} ${value}`, text(change > 0 ? "up" : "down", { value }));
}

function showTrend(row, trend) {
  // A part of the period is a minute at least: short periods have fewer parts than the list has room for.
  const { minutes } = state.answer.period;
  const values = trend.slice(0, Math.min(trend.length, minutes));
  const most = Math.max(...values, 1);
  const step = WIDE / Math.max(values.length - 1, 1);
  const points = values.map((value, at) => `${(at * step).toFixed(1)} ${(HIGH - 1 - (value / most) * (HIGH - 2)).toFixed(1)}`);
  // Where a part is a minute, the last one is not over.
  const open = minutes <= trend.length && points.length > 1;
  const done = open ? points.slice(0, -1) : points;
  const path = `M${done.join("L")}`;
  putAttribute(row.line, "d", path);
  putAttribute(row.under, "d", `${path}L${done.at(-1).split(" ")[0]} ${HIGH}L0 ${HIGH}Z`);
  putAttribute(row.unfinished, "d", open ? `M${points.slice(-2).join("L")}` : "");
  putAttribute(row.spark, "aria-label", text("trendHeard", { most: number(Math.max(...values)), last: number(values.at(-1)) }));
}

function showRanking() {
  const { agencies, period } = state.answer;
  const start = new Date(period.start);
  const end = new Date(Math.min(Date.parse(period.end), Date.parse(state.answer.generated_at)));
  const dated = day(start) !== day(end);
  const label = (moment) => (dated ? `${day(moment)} ${clock(moment, false)}` : clock(moment, false));
  put($("caption"), text("caption", { period: text(`last${period.minutes}`), from: label(start), to: label(end) }));

  const most = Math.max(...agencies.map((item) => item.share), 0) || 1;
  const before = agencies.some((item) => item.previous_uses > 0);
  const present = new Set(agencies.map((item) => item.agency));
  for (const [code, row] of rows) {
    if (!present.has(code)) {
      row.tr.remove();
      rows.delete(code);
    }
  }
  for (const item of agencies) {
    if (!rows.has(item.agency)) rows.set(item.agency, makeRow(item.agency));
    fillRow(rows.get(item.agency), item, most, before);
  }
  order(agencies.map((item) => rows.get(item.agency).tr));
}

// Puts the rows in order, touching only those that moved, and lets these glide to their places.
function order(wanted) {
  const body = $("rows");
  const standing = [...body.children];
  if (standing.length === wanted.length && standing.every((tr, at) => tr === wanted[at])) return;
  const glide = standing.length > 0 && !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const tops = new Map(glide ? standing.map((tr) => [tr, tr.getBoundingClientRect().top]) : []);
  let place = body.firstElementChild;
  for (const tr of wanted) {
    if (tr === place) place = place.nextElementSibling;
    else body.insertBefore(tr, place);
  }
  if (!glide) return;
  for (const tr of wanted) {
    const moved = (tops.get(tr) ?? NaN) - tr.getBoundingClientRect().top;
    if (moved) tr.animate([{ transform: `translateY(${moved}px)` }, { transform: "none" }], { duration: 400, easing: "ease-out" });
  }
}

function show() {
  showTexts();
  showPeriod();
  showEmpty();
  if (state.answer) {
    showFigures();
    showSilent();
    showRanking();
  }
  showFailure();
  showTime();
}

// --- asking ---------------------------------------------------------------------------------------------------------

const loop = { request: null, timer: 0, due: 0, failures: 0 };

class Refusal extends Error {
  constructor(kind, reason) {
    super(reason);
    this.kind = kind;
  }
}

async function ask(path, signal) {
  let response;
  let content;
  try {
    response = await fetch(path, { signal, cache: "no-store", headers: { Accept: "application/json" } });
    content = await response.json();
  } catch {
    throw new Refusal("worker", response && !response.ok ? `HTTP ${response.status}` : "");
  }
  if (!response.ok) throw new Refusal(response.status === 503 ? "store" : "refuses", String(content.error ?? response.status));
  return content;
}

// One request at a time: a new one, for another period, replaces the one under way.
async function refresh() {
  clearTimeout(loop.timer);
  loop.request?.abort();
  const request = new AbortController();
  loop.request = request;
  const began = performance.now();
  const limit = setTimeout(() => request.abort(), ANSWER_MS);
  let failure = null;
  try {
    const answers = [ask(`/api/overview?minutes=${state.minutes}`, request.signal), ask("/api/status", request.signal)];
    const [answer, status] = await Promise.all(answers);
    if (loop.request !== request) return;
    Object.assign(state, { answer, status, receivedAt: performance.now() });
  } catch (error) {
    if (loop.request !== request) return;
    failure = error instanceof Refusal ? { kind: error.kind, reason: error.message } : { kind: "refuses", reason: String(error) };
  } finally {
    clearTimeout(limit);
  }
  request.abort();
  loop.request = null;
  const before = state.failure;
  state.failure = failure;
  loop.failures = failure ? loop.failures + 1 : 0;
  // A slow answer is not asked for more often than half of the time.
  const pause = failure
    ? Math.min(RETRY_MS * 2 ** (loop.failures - 1), MAX_RETRY_MS)
    : Math.max(REFRESH_MS, performance.now() - began);
  loop.due = performance.now() + pause;
  if (!document.hidden) loop.timer = setTimeout(refresh, pause);
  show();
  tell(before);
}

// Says aloud what changed in kind, never each new figure.
function tell(before) {
  const { failure, answer } = state;
  if (failure) {
    if (before?.kind !== failure.kind) announce(`${text(failure.kind)} ${failure.reason}`);
  } else if (before) {
    announce(text("back"));
  } else if (state.announceNext) {
    const { totals, period } = answer;
    announce(text("shown", { period: text(`last${period.minutes}`), uses: number(totals.uses), agencies: number(totals.agencies_reporting) }));
  }
  if (!failure) state.announceNext = false;
}

// --- what the reader does -------------------------------------------------------------------------------------------

document.querySelector(".periods").addEventListener("change", (event) => {
  state.minutes = Number(event.target.value);
  state.announceNext = true;
  const address = new URL(location.href);
  address.searchParams.set("minutes", state.minutes);
  history.replaceState(null, "", address);
  showPeriod();
  refresh();
});

$("language").addEventListener("change", (event) => {
  state.language = event.target.value;
  try {
    localStorage.setItem("language", state.language);
  } catch {
    // Storage is switched off: the choice holds until the page is left.
  }
  show();
});

$("retry").addEventListener("click", () => {
  refresh();
  showCountdown();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(loop.timer);
  else refresh();
});

addEventListener("online", () => refresh());

setInterval(() => {
  if (document.hidden) return;
  showTime();
  showCountdown();
}, 1_000);

show();
refresh();
