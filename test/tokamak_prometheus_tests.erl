%% SPDX-License-Identifier: Apache-2.0
%% The text for Prometheus: read by a parser of its format, and held against tokamak:stats/0.
-module(tokamak_prometheus_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, key/0, until/1]).

prometheus_test_() ->
    call_fixture:tests([
        fun every_line_is_of_the_format/0,
        fun every_metric_has_a_help_and_a_type_before_its_values/0,
        fun no_series_comes_twice/0,
        fun the_buckets_of_a_histogram_grow_up_to_its_count/0,
        fun the_numbers_are_those_of_stats/0,
        fun the_names_of_engines_are_labels/0,
        fun labels_are_escaped/0,
        fun without_the_application_there_is_a_text_too/0
    ]).

every_line_is_of_the_format() ->
    traffic(),
    Parsed = parse(tokamak_stats:prometheus()),
    ?assert(length(Parsed) > 300).

every_metric_has_a_help_and_a_type_before_its_values() ->
    traffic(),
    Parsed = parse(tokamak_stats:prometheus()),
    ?assertEqual([], undeclared(Parsed, #{})).

undeclared([{help, Name} | Rest], Known) -> undeclared(Rest, Known#{Name => help});
undeclared([{type, Name, Type} | Rest], Known) when map_get(Name, Known) =:= help -> undeclared(Rest, Known#{Name => Type});
undeclared([{sample, Name, _, _} = Sample | Rest], Known) ->
    Histogram = [Stem || Suffix <- ["_bucket", "_sum", "_count"], Stem <- stem(Name, Suffix), map_get(Stem, Known) =:= histogram],
    case {Known, Histogram} of
        {#{Name := Type}, []} when Type =:= counter; Type =:= gauge -> undeclared(Rest, Known);
        {_, [_]} -> undeclared(Rest, Known);
        _ -> [Sample | undeclared(Rest, Known)]
    end;
undeclared([Other | Rest], Known) -> [Other | undeclared(Rest, Known)];
undeclared([], _Known) -> [].

stem(Name, Suffix) ->
    [lists:sublist(Name, length(Name) - length(Suffix)) || lists:suffix(Suffix, Name)].

no_series_comes_twice() ->
    traffic(),
    Series = [{Name, Labels} || {sample, Name, Labels, _} <- parse(tokamak_stats:prometheus())],
    ?assertEqual([], Series -- lists:usort(Series)).

the_buckets_of_a_histogram_grow_up_to_its_count() ->
    traffic(),
    Samples = samples(),
    Name = "tokamak_call_duration_seconds",
    Counts = [{Labels, Value} || {sample, N, Labels, Value} <- Samples, N =:= Name ++ "_count"],
    ?assertEqual(16, length(Counts)),
    lists:foreach(
        fun({Labels, Count}) ->
            Buckets = [
                {le(maps:get("le", L)), Value}
             || {sample, N, L, Value} <- Samples, N =:= Name ++ "_bucket", maps:remove("le", L) =:= Labels
            ],
            ?assertEqual(Buckets, lists:sort(Buckets)),
            Values = [Value || {_Le, Value} <- Buckets],
            ?assertEqual(Values, lists:sort(Values)),
            ?assertEqual({infinity, Count}, lists:last(Buckets))
        end,
        Counts
    ).

%% An atom is greater than every number.
le("+Inf") -> infinity;
le(Text) -> number(Text).

the_numbers_are_those_of_stats() ->
    traffic(),
    {ok, Loop} = tokamak_loop:new(),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- [1, 2, 3]],
    #{calls := Calls, loop_totals := Loops, runtime := Runtime, loops := Count} = tokamak:stats(),
    ?assertEqual(Count, value("tokamak_loops", #{})),
    ?assertEqual(maps:get(pushed, Loops), value("tokamak_loop_events_total", #{})),
    ?assertEqual(maps:get(queued, Loops), value("tokamak_loop_events_queued", #{})),
    ?assert(maps:get(queued, Loops) >= 3),
    Base = #{"engine" => "tokamak_nif"},
    ?assertEqual(maps:get(workers, Runtime), value("tokamak_workers", Base)),
    lists:foreach(
        fun(Kind) ->
            #{Kind := #{count := Ended, sampled := Sampled}} = Calls,
            Labels = [#{"engine" => Engine, "kind" => atom_to_list(Kind)} || Engine <- ["tokamak_nif", "tokamak_test_engine"]],
            ?assertEqual(Ended, lists:sum([value("tokamak_calls_total", L) || L <- Labels])),
            ?assertEqual(Sampled, lists:sum([value("tokamak_call_duration_seconds_count", L) || L <- Labels]))
        end,
        maps:keys(Calls)
    ),
    ok = tokamak_loop:destroy(Loop).

the_names_of_engines_are_labels() ->
    traffic(),
    Engines = [maps:get("engine", Labels) || {sample, "tokamak_workers", Labels, 2} <- samples()],
    ?assert(lists:member("tokamak_test_engine", Engines)).

labels_are_escaped() ->
    Stats = tokamak_stats:stats(),
    #{engines := #{tokamak_nif := Base}} = Stats,
    Odd = Stats#{engines := #{'a"b\\c\nd' => Base}},
    Parsed = parse(iolist_to_binary(tokamak_exposition:text(Odd))),
    Names = lists:usort([Engine || {sample, _, #{"engine" := Engine}, _} <- Parsed]),
    ?assertEqual(["a\"b\\c\nd"], Names).

without_the_application_there_is_a_text_too() ->
    ok = application:stop(tokamak),
    Parsed = parse(tokamak_stats:prometheus()),
    ?assert(lists:member({sample, "tokamak_loops", #{}, 0}, Parsed)),
    {ok, _} = application:ensure_all_started(tokamak).

traffic() ->
    {ok, _} = tokamak:call(op(block), [key(), 0]),
    {ok, _} = tokamak:call(sleep, [0]),
    {ok, 1} = tokamak:call(echo, [1]).

samples() ->
    [Sample || {sample, _, _, _} = Sample <- parse(tokamak_stats:prometheus())].

value(Name, Labels) ->
    [Value] = [V || {sample, N, L, V} <- samples(), N =:= Name, L =:= Labels],
    Value.

%% The text format, version 0.0.4, line by line. What is not of it has no clause here.
parse(Text) ->
    {Lines, [""]} = lists:split(length(lines(Text)) - 1, lines(Text)),
    [line(Line) || Line <- Lines].

lines(Text) ->
    string:split(unicode:characters_to_list(Text), "\n", all).

line("# HELP " ++ Rest) ->
    {Name, " " ++ [_ | _]} = name(Rest, []),
    {help, Name};
line("# TYPE " ++ Rest) ->
    {Name, " " ++ Type} = name(Rest, []),
    {type, Name, type(Type)};
line(Line) ->
    {Name, Rest} = name(Line, []),
    {Labels, " " ++ Value} = labels(Rest),
    {sample, Name, Labels, number(Value)}.

type("counter") -> counter;
type("gauge") -> gauge;
type("histogram") -> histogram.

name([C | Rest], Name) when C >= $a, C =< $z; C >= $A, C =< $Z; C =:= $_; C =:= $:; C >= $0, C =< $9, Name =/= [] ->
    name(Rest, [C | Name]);
name(Rest, [_ | _] = Name) ->
    {lists:reverse(Name), Rest}.

labels("{" ++ Rest) -> label(Rest, #{});
labels(Rest) -> {#{}, Rest}.

label(Text, Labels) ->
    {Name, "=\"" ++ Rest} = name(Text, []),
    false = is_map_key(Name, Labels),
    case quoted(Rest, []) of
        {Value, "," ++ More} -> label(More, Labels#{Name => Value});
        {Value, "}" ++ More} -> {Labels#{Name => Value}, More}
    end.

quoted("\\\\" ++ Rest, Value) -> quoted(Rest, [$\\ | Value]);
quoted("\\\"" ++ Rest, Value) -> quoted(Rest, [$" | Value]);
quoted("\\n" ++ Rest, Value) -> quoted(Rest, [$\n | Value]);
quoted("\"" ++ Rest, Value) -> {lists:reverse(Value), Rest};
quoted([C | Rest], Value) when C =/= $\\, C =/= $\n -> quoted(Rest, [C | Value]).

%% Numbers as Go reads them.
number(Text) ->
    case re:run(Text, "^(-?[0-9]+)(\\.[0-9]+)?(e-?[0-9]+)?$", [{capture, all_but_first, list}]) of
        {match, [Integer]} -> list_to_integer(Integer);
        {match, [Integer, Fraction]} -> list_to_float(Integer ++ Fraction);
        {match, [Integer, Fraction, Exponent]} -> list_to_float(Integer ++ Fraction ++ Exponent)
    end.
