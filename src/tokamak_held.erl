%% SPDX-License-Identifier: Apache-2.0
%% @doc Events that are held back for one handler: in order, and to be found by their callback id, as a handler may
%% have very many ids that come and go.
%% @private
-module(tokamak_held).

-export([new/0, in/3, out/2, take/2, len/1]).
-export_type([held/1]).

-record(held, {
    %% Numbers of the oldest event that may be there, and of the next one.
    first = 0 :: non_neg_integer(),
    next = 0 :: non_neg_integer(),
    events = #{} :: #{non_neg_integer() => {pos_integer(), term()}},
    %% Of each id the numbers of its events.
    numbers = #{} :: #{pos_integer() => queue:queue(non_neg_integer())}
}).

-opaque held(Event) :: #held{events :: #{non_neg_integer() => {pos_integer(), Event}}}.

%% @doc Nothing.
-spec new() -> held(_).
new() ->
    #held{}.

%% @doc Adds an event of a callback id.
-spec in(pos_integer(), Event, held(Event)) -> held(Event).
in(Id, Event, #held{next = Next, events = Events, numbers = Numbers} = Held) ->
    OfId = maps:get(Id, Numbers, queue:new()),
    Held#held{
        next = Next + 1,
        events = Events#{Next => {Id, Event}},
        numbers = Numbers#{Id => queue:in(Next, OfId)}
    }.

%% @doc The oldest events, up to so many, and the rest.
-spec out(non_neg_integer(), held(Event)) -> {[Event], held(Event)}.
out(Count, Held) ->
    out(Count, Held, []).

out(Count, #held{events = Events} = Held, Out) when Count =:= 0; map_size(Events) =:= 0 ->
    {lists:reverse(Out), Held};
out(Count, #held{first = First, events = Events, numbers = Numbers} = Held, Out) ->
    case maps:take(First, Events) of
        {{Id, Event}, Rest} ->
            Next = Held#held{first = First + 1, events = Rest, numbers = drop_first(Id, Numbers)},
            out(Count - 1, Next, [Event | Out]);
        error ->
            %% It was taken with others of its id.
            out(Count, Held#held{first = First + 1}, Out)
    end.

drop_first(Id, Numbers) ->
    OfId = queue:drop(maps:get(Id, Numbers)),
    case queue:is_empty(OfId) of
        true -> maps:remove(Id, Numbers);
        false -> Numbers#{Id := OfId}
    end.

%% @doc All events of a callback id, the oldest first, and the rest.
-spec take(pos_integer(), held(Event)) -> {[Event], held(Event)}.
take(Id, #held{events = Events, numbers = Numbers} = Held) ->
    case maps:take(Id, Numbers) of
        {OfId, Others} ->
            Taken = queue:to_list(OfId),
            OfIdInOrder = [Event || Number <- Taken, {_, Event} <- [maps:get(Number, Events)]],
            {OfIdInOrder, Held#held{events = maps:without(Taken, Events), numbers = Others}};
        error ->
            {[], Held}
    end.

%% @doc How many there are.
-spec len(held(_)) -> non_neg_integer().
len(#held{events = Events}) ->
    map_size(Events).
